"""What is written about a film: the structured report, the picture, their UIDs and whose they are."""

import io
import re
import uuid
from pathlib import Path

import numpy as np
import pytest
from made_films import CR, NAMES, UMLAUT, dicom, eight_kinds, pydicom, rewritten, uid

from chexpert_hier import hierarchy
from chexpert_hier.dicom_node import codes, source
from chexpert_hier.dicom_node.answering import LeftError
from chexpert_hier.dicom_node.findings import Finding
from chexpert_hier.dicom_node.picture import HEAD, HEIGHT, WIDTH, shown

PAGE = Path(__file__).parents[2] / "docs" / "dicom_node.md"


def read(data):
    return pydicom.dcmread(io.BytesIO(data))


def written(answerer, data):
    """(report, picture) as data sets."""
    files = answerer.answer(data)
    found = {str(one.SOPClassUID.name): one for one in map(read, files.values())}
    assert [str(one.SOPInstanceUID) for one in map(read, files.values())] == list(files)
    return found["Comprehensive SR Storage"], found["Secondary Capture Image Storage"]


@pytest.fixture(scope="module")
def pair(answerer, frontal):
    return written(answerer, dicom(frontal[0]))


def items(container):
    """(name, value) of a container's content items; containers give themselves."""
    for item in container.ContentSequence:
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
        if item.ValueType == "CODE":
            found = item.ConceptCodeSequence[0]
            yield name, (found.CodeValue, found.CodingSchemeDesignator, found.CodeMeaning)
        elif item.ValueType == "NUM":
            yield name, float(item.MeasuredValueSequence[0].NumericValue)
        else:
            yield name, item.get("TextValue", item)


def groups(report):
    """The measurement groups, by the finding's label."""
    measured = dict(items(report))["Imaging Measurements"]
    return {dict(items(group))["Tracking Identifier"]: list(items(group)) for _, group in items(measured)}


def test_the_report_says_what_the_model_says(answerer, frontal, pair):
    report, found = pair[0], groups(pair[0])
    model = answerer.about.model
    reading = model.answer([(model.read(dicom(frontal[0])), False)])[0]
    assert sorted(found) == sorted(model.labels) and report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    points = model.engine.validation["labels"]
    for k, label in enumerate(model.labels):
        said = dict(found[label])
        code = codes.of_finding(label)
        assert said["Finding"] == (code.value, code.scheme, code.meaning)
        assert said["Probability"] == pytest.approx(reading.answers.probabilities[0, k], abs=6e-5)
        call = reading.answers.more["call"][0, k]
        if np.isnan(call):
            assert codes.CALL.meaning not in said
        else:
            assert said[codes.CALL.meaning][2] == ("Present" if call else "Absent")
            assert said[codes.THRESHOLD.meaning] == pytest.approx(points[label]["threshold"], abs=6e-5)
        parameters = [value for name, value in found[label] if name == "Algorithm Parameters"]
        assert f"model fingerprint {answerer.fingerprint}" in parameters and "Algorithm Name" in said
        assert answerer.fingerprint in said["Algorithm Version"]
    assert any(codes.CALL.meaning in dict(one) for one in found.values())


def test_the_report_says_what_it_is(pair, answerer):
    report, _ = pair
    comments = [value for name, value in items(report) if name == "Comment"]
    assert comments[0].startswith("Research use only; not a medical device")
    assert any(answerer.fingerprint in one and "made-up hospital" in one for one in comments)
    assert not any("drawn" in one for one in comments)
    assert report.PreliminaryFlag == "PRELIMINARY" and report.VerificationFlag == "UNVERIFIED"
    assert "RESEARCH USE ONLY" in report.SeriesDescription


def test_a_model_of_drawn_films_says_so_and_makes_no_call(run, frontal, answerer):
    from chexpert_hier.dicom_node.answering import Answerer

    report, _ = written(Answerer([str(run)]), dicom(frontal[0]))
    comments = [value for name, value in items(report) if name == "Comment"]
    assert any(one.startswith("Trained on drawn films") for one in comments)
    for found in groups(report).values():
        said = dict(found)
        assert codes.CALL.meaning not in said and codes.THRESHOLD.meaning not in said
        assert "no call: a model of drawn films makes none on others" in [value for _, value in found]
    assert report.SOPInstanceUID != answerer.uids(uid(1, 1, 1)).report  # another model, another report


def test_only_the_tags_that_file_a_report_are_taken_over(pair, frontal):
    film = read(dicom(frontal[0]))
    for one in pair:
        for name in source.IDENTITY:
            assert one.get(name) == film.get(name), name
        text = str(one)
        for secret in (film.InstitutionName, film.StudyDescription, film.PatientComments):
            assert secret not in text
        assert one.SeriesInstanceUID not in (film.SeriesInstanceUID, pair[one is pair[0]].SeriesInstanceUID)
    evidence = pair[0].CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == film.SOPInstanceUID
    assert pair[1].SourceImageSequence[0].ReferencedSOPInstanceUID == film.SOPInstanceUID


def test_the_picture_shows_no_tag_and_carries_the_warning(pair, answerer, frontal):
    """The same film of another patient gives the same pixels; the banner is there."""
    pixels = pair[1].pixel_array
    other = written(answerer, dicom(frontal[0], PatientName="Somebody^Else", PatientID="X", StudyDate="19990101"))[1]
    assert np.array_equal(pixels, other.pixel_array) and pixels.shape == (HEIGHT, WIDTH, 3)
    banner = pixels[:HEAD]
    assert (banner[2] == (168, 44, 36)).all() and (banner == 255).all(-1).sum() > 2000  # red, with white words
    assert pair[1].PhotometricInterpretation == "RGB" and "BurnedInAnnotation" not in pair[1]
    marked = written(answerer, dicom(frontal[0], BurnedInAnnotation="YES"))[1]
    assert marked.BurnedInAnnotation == "YES"  # the film's own pixels are in the picture


@pytest.mark.parametrize("name, characters, expected", [
    (UMLAUT, "ISO_IR 100", "ISO_IR 100"), ("Yamada^Tarou=山田^太郎", "ISO_IR 192", "ISO_IR 192"),
    ("Plain^Name", "ISO_IR 100", None)])
def test_names_in_other_letters_arrive(answerer, frontal, name, characters, expected):
    for one in written(answerer, dicom(frontal[0], PatientName=name, SpecificCharacterSet=characters)):
        assert str(one.PatientName) == name and one.get("SpecificCharacterSet") == expected


def test_what_a_film_lacks_is_there_and_empty_and_odd_values_are_repeated(answerer, frontal):
    bare = dicom(frontal[0], PatientName=None, PatientBirthDate=None, PatientSex=None, StudyDate=None, StudyTime=None,
                 AccessionNumber=None, ReferringPhysicianName=None, PatientOrientation=None)
    for one in written(answerer, bare):
        for name in ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber"):
            assert name in one and not one[name].value
        assert "IssuerOfPatientID" not in one
    odd = rewritten(dicom(frontal[0]), PatientID="  7 ", PatientSex="U", AccessionNumber="A" * 16)
    for one in written(answerer, odd):
        assert one.PatientSex == "U" and one.AccessionNumber == "A" * 16


def test_what_gets_no_report_and_why(answerer, frontal, lateral):
    for name, (data, _, expected) in eight_kinds(frontal[0], lateral).items():
        if expected is True:
            assert len(answerer.answer(data)) == 2, name
        else:
            with pytest.raises(LeftError, match=expected) as left:
                answerer.answer(data)
            assert not any(secret in str(left.value) for secret in NAMES)
    for data, why in ((b"no film", "not a DICOM"), (dicom(frontal[0], SOPInstanceUID="", kind=CR), "no SOPInstanceUID"),
                      (dicom(np.rot90(frontal[0]).copy()), "odd: "), (dicom(255 - frontal[0]), "odd: ")):
        with pytest.raises(LeftError, match=why):
            answerer.answer(data)


def test_an_odd_film_is_reported_on_with_a_word_where_that_is_asked(answerer, frontal, monkeypatch):
    monkeypatch.setattr(answerer, "odd_too", True)
    report, _ = written(answerer, dicom(255 - frontal[0]))
    assert any(str(value).startswith("Odd about this film") for name, value in items(report) if name == "Comment")


def test_uids_follow_from_film_and_model():
    one, again, other = (source.Uids("1.2.3", "aa"), source.Uids("1.2.3", "aa"), source.Uids("1.2.3", "ab"))
    assert one.report == again.report != other.report and len({one.report, one.picture, one.of("x")}) == 3
    # By hand from RFC 9562: version 5 of the name below the namespace of OIDs.
    assert source.derived_uid("aa", "1.2.3", "report") == \
        f"2.25.{uuid.uuid5(uuid.UUID('6ba7b812-9dad-11d1-80b4-00c04fd430c8'), 'chexpert_hier aa 1.2.3 report').int}"
    assert re.fullmatch(r"2\.25\.[1-9]\d{1,38}", one.report)


def test_every_label_has_a_code_that_dicom_can_hold():
    labels = {label for tree in hierarchy.TREES.values() for label in tree.labels} | {"of my own", "ü" * 80}
    found = {label: codes.of_finding(label) for label in labels}
    for code in found.values():
        assert len(code.value) <= 16 and len(code.meaning) <= 64 and len(code.scheme) <= 16
    assert found["Effusion"] == found["Pleural Effusion"]
    same = [code[:2] for label, code in found.items() if label != "Effusion"]
    assert len(set(same)) == len(same)


def test_standard_codes_are_those_of_dicom():
    """Against PS3.16 as pydicom has it; RadLex and Cardiomegaly are not in it."""
    from pydicom.sr.codedict import Collection

    every = [*codes.FINDINGS.values(), codes.PROBABILITY, codes.PRESENT, codes.ABSENT, codes.REPORT, codes.COMMENT]
    for code in every:
        if code.source.startswith("DICOM"):
            number = re.search(r"CID (\d+)", code.source)
            group = Collection(f"CID{number[1]}" if number else code.scheme)
            assert any((one.value, one.scheme_designator, one.meaning) == code[:3]
                       for one in (getattr(group, name) for name in group.dir())), code


def test_the_page_has_the_table_of_codes():
    rows = {tuple(cell.strip() for cell in line.strip("| ").split("|"))
            for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")}
    for label, code in codes.FINDINGS.items():
        assert (label, f"{code.value}, {code.scheme}", code.meaning, code.source) in rows, label


def test_maps_are_of_what_is_called_present():
    def finding(label, probability, present):
        return Finding(label, 0, probability, present, 0.5, "")

    called = [finding("a", 0.6, True), finding("b", 0.9, False), finding("c", 0.7, True),
              finding("No Finding", 0.99, True)]
    assert [one.label for one in shown(called)] == ["c", "a"]
    assert [one.label for one in shown([finding(str(k), k / 10, None) for k in range(5)])] == ["4", "3", "2"]
    assert shown([finding("a", 0.4, False)]) == []
