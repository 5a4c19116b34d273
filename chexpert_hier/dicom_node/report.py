"""The structured report of one film: a Comprehensive SR after TID 1500, with one measurement group for each finding.

highdicom writes it. The texts are those that `predict` prints.

Source: DICOM PS3.16 TID 1500 (Measurement Report), TID 1501 (Measurement and Qualitative Evaluation Group), TID 4019
(Algorithm Identification), TID 1004 (Device Observer); PS3.3 A.35.3 (Comprehensive SR).
"""

from typing import Any

from .. import __version__
from . import codes
from .findings import About, Finding
from .source import Source, Uids, derived_uid

MAKER = "chexpert_hier"  # Manufacturer of all that is written; by it the node knows its own work
SERIES = 9001  # series numbers, behind those of the acquisition; our choice
DESCRIPTION = "RESEARCH USE ONLY: AI findings"
DIGITS = 4  # of a probability


def structured_report(source: Source, uids: Uids, about: About, findings: list[Finding], flag: str) -> Any:
    """Write a film's findings as a Comprehensive SR.

    Args:
        source: the film.
        uids: of what is written about it.
        about: the model.
        findings: what it says.
        flag: what is odd about the film in words, "" for nothing.

    Returns:
        a pydicom data set with its file meta information.
    """
    import highdicom as hd

    film = _reference(source)
    content = hd.sr.MeasurementReport(
        observation_context=_observer(about),
        procedure_reported=_code(codes.PROCEDURE),
        imaging_measurements=[_group(film, uids, about, finding) for finding in findings],
        title=_code(codes.REPORT))
    for words in _comments(about, flag):
        content[0].ContentSequence.append(hd.sr.TextContentItem(
            _code(codes.COMMENT), words, hd.sr.RelationshipTypeValues.CONTAINS))
    report = hd.sr.ComprehensiveSR(
        evidence=[film], content=content, series_instance_uid=uids.of("report series"), series_number=SERIES,
        sop_instance_uid=uids.report, instance_number=1, is_complete=True, is_final=False,
        **equipment(about, DESCRIPTION))
    report.CodingSchemeIdentificationSequence = [_private_scheme()]
    source.identify(report)
    return report


def equipment(about: About, description: str) -> dict[str, Any]:
    """What highdicom wants to know of the series and of who made it."""
    return {"series_description": description, "manufacturer": MAKER, "manufacturer_model_name": about.name,
            "device_serial_number": about.fingerprint, "software_versions": __version__}


def _reference(source: Source) -> Any:
    """The film as highdicom looks at it: without its patient, whom `Source.identify` brings in."""
    import pydicom

    film = pydicom.Dataset()
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        film[name] = source.tags[name]
    film.Modality = source.tags.get("Modality") or "DX"
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
                 "StudyDate", "StudyTime", "ReferringPhysicianName"):
        setattr(film, name, None)
    return film


def _code(coding: codes.Coding) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value=coding.value, scheme_designator=coding.scheme, meaning=coding.meaning)


def _observer(about: About) -> Any:
    """The device that observed: this model."""
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObservationContext, ObserverContext
    from pydicom.sr.codedict import codes as standard

    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid(about.fingerprint, "device"), name=about.name, manufacturer_name=MAKER,
        model_name=about.name, serial_number=about.fingerprint)
    return ObservationContext(observer_device_context=ObserverContext(standard.DCM.Device, device))


def _group(film: Any, uids: Uids, about: About, finding: Finding) -> Any:
    """One finding: its code, probability, operating point and call, and the algorithm that says so (TID 1501)."""
    from highdicom import sr

    point = None if finding.present is None else finding.threshold
    numbers = [(codes.PROBABILITY, finding.probability), (codes.THRESHOLD, point)]
    calls = {True: codes.PRESENT, False: codes.ABSENT}
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uids.of(f"finding {finding.label}"), finding.label),
        finding_type=_code(finding.code),
        algorithm_id=sr.AlgorithmIdentification(about.name, about.version, _parameters(about, finding)),
        measurements=[sr.Measurement(_code(name), round(value, DIGITS), _code(codes.NO_UNITS))
                      for name, value in numbers if value is not None],
        qualitative_evaluations=[] if finding.present is None else [
            sr.QualitativeEvaluation(_code(codes.CALL), _code(calls[finding.present]))],
        source_images=[sr.SourceImageForMeasurementGroup(film.SOPClassUID, film.SOPInstanceUID)])


def _parameters(about: About, finding: Finding) -> list[str]:
    """What the number depends on, in words."""
    said = [f"model fingerprint {about.fingerprint}", f"trained on {about.trained_on}"]
    if finding.present is None:
        return [*said, about.no_call]
    rates = f"; {finding.rates}" if finding.rates else ""
    return [*said, f"operating point {finding.threshold:.{DIGITS}f} by {about.rule}{rates}"]


def _comments(about: About, flag: str) -> list[str]:
    model = f"Model {about.name}, version {about.version}, trained on {about.trained_on}."
    return [*(f"{words[0].upper()}{words[1:]}." for words in about.words), model,
            *([f"Odd about this film: {flag}."] if flag else [])]


def _private_scheme() -> Any:
    import pydicom

    item = pydicom.Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName = codes.PRIVATE, "chexpert_hier, docs/dicom_node.md"
    item.CodingSchemeResponsibleOrganization = MAKER
    return item
