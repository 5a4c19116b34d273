"""The node against an archive in memory: what it sees, writes once, leaves, keeps, and does when all goes wrong."""

import collections
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from chexpert_hier.dicom_node import access, dicomweb, ledger, node, orthanc, source
from chexpert_hier.dicom_node.__main__ import main
from chexpert_hier.dicom_node.access import Access, ArchiveError, GoneError, RefusedError, Web
from chexpert_hier.dicom_node.answering import LeftError
from chexpert_hier.dicom_node.series import Instance, Series, other_modality
from chexpert_hier.errors import InputError

ASKED = {"archive": "memory", "model": "aa", "receiver": ""}


class Stopped(BaseException):
    """The process ends here, as kill -9 would end it."""


class Memory:
    """An archive: films by series; whatever `trouble` gives is raised once at the call of that number."""

    address = "memory"

    def __init__(self, series):
        self.films, self.kept, self.stored, self.growing = series, {}, [], set()
        self.calls, self.trouble = 0, {}

    def called(self):
        self.calls += 1
        if self.calls in self.trouble:
            raise self.trouble.pop(self.calls)

    def look(self, place):
        self.called()
        seen = place.fact("seen") or 0
        names = list(self.films)
        place.advance(len(names), dict.fromkeys(names[seen:], True))
        self.called()

    def series(self, name, about, place):
        self.called()
        if name not in self.films:
            raise GoneError("gone")
        films = self.films[name]
        if name in self.growing:
            return None
        return films if isinstance(films, Series) else Series(tuple(Instance(uid, uid) for uid in films))

    def fetch(self, instance):
        self.called()
        return instance.uid.encode()

    def has(self, beside, uid):
        self.called()
        return uid in self.kept

    def store(self, data):
        self.called()
        uid = data.decode()
        self.stored.append(uid)
        self.kept.setdefault(uid, data)
        self.called()


class Answers:
    """In place of a model: a film whose name begins with an x is none."""

    def __init__(self, fingerprint="aa"):
        self.fingerprint, self.films = fingerprint, []

    def uids(self, film):
        return source.Uids(film, self.fingerprint)

    def answer(self, data):
        film = data.decode()
        self.films.append(film)
        if film.startswith("x"):
            raise LeftError("a lateral film")
        uids = self.uids(film)
        return {uids.picture: uids.picture.encode(), uids.report: uids.report.encode()}


@pytest.fixture
def place(tmp_path):
    def make(**changes):
        return ledger.Ledger(tmp_path / "place", {**ASKED, **changes})

    return make


def make_node(archive, place, answers=None, sent=None, sleeps=None):
    ways = node.Ways(1.0, None if sent is None else sent.append, (lambda s: None) if sleeps is None else sleeps.append)
    return node.Node(archive, answers or Answers(), place, ways)


def three():
    return Memory({"s1": ["a", "x1"], "s2": Series((Instance("", 1), Instance("", 2)), "modality is CT, not CR or DX"),
                   "s3": ["b"]})


def expected(*films):
    uids = [source.Uids(film, "aa") for film in films]
    return {uid for one in uids for uid in (one.report, one.picture)}


def test_each_film_is_answered_once_and_what_is_left_is_counted(place):
    archive, answers = three(), Answers()
    make_node(archive, place(), answers).once()
    assert set(archive.kept) == expected("a", "b") and answers.films == ["a", "x1", "b"]
    counts = place().counts()
    assert counts == {"answered": 2, "a lateral film": 1, "modality is CT, not CR or DX": 2}
    assert node.summary(counts).splitlines() == [
        "answered: 2; left: 3", "  2 modality is CT, not CR or DX", "  1 a lateral film"]
    make_node(archive, place(), answers).once()  # nothing is new
    assert len(archive.stored) == 4 and len(answers.films) == 3 and place().counts() == counts


def test_killed_at_every_single_call_nothing_is_lost_and_nothing_doubled(place, tmp_path):
    """In turn at each of the calls to the archive of a whole run."""
    whole = three()
    make_node(whole, ledger.Ledger(tmp_path / "whole", ASKED)).once()
    for moment in range(1, whole.calls + 1):
        archive, sent = three(), []
        here = ledger.Ledger(tmp_path / str(moment), ASKED)
        here.store.execute("pragma synchronous = off")  # for the sake of time
        archive.trouble = {moment: Stopped()}
        with pytest.raises(Stopped):
            make_node(archive, here, sent=sent).once()
        here.close()
        again = ledger.Ledger(tmp_path / str(moment), ASKED)
        again.store.execute("pragma synchronous = off")
        make_node(archive, again, sent=sent).once()
        assert set(archive.kept) == expected("a", "b") and sorted(archive.stored) == sorted(set(archive.stored))
        assert again.counts() == {"answered": 2, "a lateral film": 1, "modality is CT, not CR or DX": 2}
        assert {uid for uids in sent for uid in uids} == expected("a", "b")  # sent on at least once


def test_two_workers_and_another_model(place, tmp_path):
    archive = three()
    make_node(archive, place()).once()
    second = Answers()
    make_node(archive, ledger.Ledger(tmp_path / "second", ASKED), second).once()
    assert set(archive.kept) == expected("a", "b") and len(archive.stored) == 4 and second.films == ["x1"]
    make_node(archive, ledger.Ledger(tmp_path / "third", ASKED), Answers("bb")).once()
    assert len(archive.kept) == 8
    with pytest.raises(InputError, match="another model"):
        place(model="bb")


def test_a_report_that_was_deleted_comes_back_with_its_film_and_a_late_film_is_answered(place):
    archive, answers = three(), Answers()
    make_node(archive, place(), answers).once()
    archive.kept.pop(source.Uids("a", "aa").report)
    archive.films["s1"].append("late")
    place().advance(3, {"s1": True})  # as an archive says after a new film in it
    make_node(archive, place(), answers).once()
    assert set(archive.kept) == expected("a", "b", "late") and answers.films[3:] == ["a", "x1", "late"]
    assert place().counts()["answered"] == 3 and place().counts()["a lateral film"] == 1


def test_films_that_come_during_a_long_round_are_answered_before_the_end(place):
    archive, answers = three(), Answers()
    plain = answers.answer

    def slow(data):
        archive.films.setdefault("came meanwhile", ["c"])
        return plain(data)

    answers.answer = slow
    make_node(archive, place(), answers).once()
    assert set(archive.kept) == expected("a", "b", "c")


def test_a_growing_series_is_waited_for_and_one_that_went_is_forgotten(place):
    archive, sleeps = three(), []
    archive.growing.add("s3")
    worker = make_node(archive, place(), sleeps=sleeps)
    worker.round()
    assert list(place().waiting()) == ["s3"] and set(archive.kept) == expected("a")
    archive.films.pop("s3")
    worker.once()
    assert not place().waiting() and set(archive.kept) == expected("a") and not sleeps


def test_an_archive_that_is_away_or_full_is_waited_for(place):
    archive, sleeps = three(), []
    archive.trouble = {1: ArchiveError("away"), 2: GoneError("no such page yet"), 9: ArchiveError("full")}
    make_node(archive, place(), sleeps=sleeps).once()
    assert set(archive.kept) == expected("a", "b") and sleeps == [1.0] * 3
    forever = three()
    forever.trouble = {number: ArchiveError("memory is full") for number in range(1, 10)}
    with pytest.raises(InputError, match="memory is full; what was done is kept"):
        make_node(forever, ledger.Ledger(place_of(place) / "x", ASKED)).once()


def test_an_archive_that_says_well_and_keeps_nothing_is_not_believed(place):
    archive = three()
    archive.store = lambda data: None
    with pytest.raises(InputError, match="did not keep a report; is it full"):
        make_node(archive, place()).once()
    assert place().counts()["answered"] == 0 and place().waiting()


def place_of(place):
    import pathlib

    return pathlib.Path(place().store.execute("pragma database_list").fetchone()[2]).parent


def test_following_waits_longer_and_longer_and_begins_again(place):
    archive, waits = three(), []
    archive.trouble = {number: ArchiveError("away") for number in range(1, 9)}

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 10:
            raise Stopped

    with pytest.raises(Stopped):
        node.Node(archive, Answers(), place(), node.Ways(1.0, None, sleep)).follow()
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 1, 1] and set(archive.kept) == expected("a", "b")


def test_a_film_that_ends_the_process_again_and_again_is_left(place):
    archive = Memory({"s1": ["bad"], "s2": ["good"]})

    class Deadly(Answers):
        def answer(self, data):
            if data == b"bad":
                raise Stopped
            return super().answer(data)

    for _ in range(ledger.MOST_TRIES):
        with pytest.raises(Stopped):
            make_node(archive, place(), Deadly()).once()
    make_node(archive, place(), Deadly()).once()
    assert place().counts() == {"answered": 1, f"ended the process {ledger.MOST_TRIES} times": 1}
    assert set(archive.kept) == expected("good")


def test_a_report_that_the_archive_refuses_does_not_hold_up_the_others(place):
    archive = three()
    archive.trouble = {7: RefusedError("the archive refused (HTTP 400)")}  # look (2), series, has (2), fetch, store
    make_node(archive, place()).once()
    assert place().counts()["the archive refused (HTTP 400)"] == 1 and set(archive.kept) == expected("b")


def test_a_film_that_goes_while_it_is_fetched_and_one_whose_uid_is_another(place):
    archive = Memory({"s1": ["gone"], "s2": ["other"], "s3": ["good"]})
    answers, fetch = Answers(), archive.fetch

    def fetched(instance):
        if instance.uid == "gone":
            raise GoneError("not there")
        return b"quite another" if instance.uid == "other" else fetch(instance)

    archive.fetch = fetched
    make_node(archive, place(), answers).once()
    assert place().counts() == {"answered": 1, "its UID in the file is another than in the archive": 1}
    archive.fetch = fetch  # both are sent again, whole
    place().advance(3, {"s1": True, "s2": True})
    make_node(archive, place(), answers).once()
    assert place().counts() == {"answered": 3} and set(archive.kept) == expected("gone", "other", "good")


def test_a_damaged_place_is_refused(tmp_path):
    (tmp_path / ledger.FILE).write_bytes(b"no data base at all" * 100)
    with pytest.raises(InputError, match="damaged"):
        ledger.Ledger(tmp_path, ASKED)


def test_the_place_holds_no_uid_of_a_film_and_is_for_its_owner_alone(place):
    archive = Memory({"s1": ["1.2.840.4711"]})
    make_node(archive, place()).once()
    file = place_of(place) / ledger.FILE
    assert b"1.2.840.4711" not in file.read_bytes() and file.stat().st_mode & 0o077 == 0


# ------------------------------------------------------------------------------------------- over HTTP

@pytest.fixture
def web():
    """A web server with made-up answers: (method, path) -> (code, body), or a function of the request's body."""
    answers, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.command, self.path, dict(self.headers), body))
            page = answers.get((self.command, self.path.split("?")[0], "pages"))
            if page:
                said = json.dumps(page(int(re.search(r"offset=(\d+)", self.path)[1])))
                answers[self.command, self.path.split("?")[0]] = 200, said.encode()
            code, said, *kind = answers.get((self.command, self.path.split("?")[0]), (404, b""))
            data = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(code)
            self.send_header("Content-Type", kind[0] if kind else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield collections.namedtuple("Made", "address answers asked")(
        f"http://127.0.0.1:{server.server_address[1]}", answers, asked)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("code, body, kind", [
    (401, b"", InputError), (403, b"", InputError), (404, b"", GoneError), (400, b"", RefusedError),
    (302, b"", RefusedError), (500, b"", ArchiveError), (507, b"", ArchiveError), (503, b"", ArchiveError),
    (400, {"OrthancStatus": 19}, ArchiveError), (200, b"<html>", ArchiveError)])
def test_what_http_answers_mean(web, code, body, kind):
    web.answers["GET", "/x"] = code, body
    with pytest.raises(kind):
        Web(web.address, Access()).json("GET", "/x")


def test_an_archive_that_is_not_there_is_a_passing_trouble():
    with pytest.raises(ArchiveError, match="does not answer"):
        Web("http://127.0.0.1:9", Access()).ask("GET", "/1.2.3")


def test_who_we_are_comes_from_a_file_that_is_ours_alone(web, tmp_path):
    file = tmp_path / "access.json"
    file.write_text(json.dumps({"user": "node", "password": "secret-7"}))
    file.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        access.read(str(file))
    file.chmod(0o600)
    web.answers["GET", "/x"] = 200, []
    Web(web.address, access.read(str(file))).json("GET", "/x")
    assert web.asked[-1][2]["Authorization"] == "Basic bm9kZTpzZWNyZXQtNw=="  # node:secret-7
    file.write_text(json.dumps({"token": "t-1"}))
    Web(web.address, access.read(str(file))).json("GET", "/x")
    assert web.asked[-1][2]["Authorization"] == "Bearer t-1"
    for wrong in ({"user": "a"}, {"pass": "secret-8"}, {"ca": "/no/such.pem"}, {"password": ["secret-9"]}, [1]):
        file.write_text(json.dumps(wrong))
        with pytest.raises(InputError) as error:
            access.read(str(file))
        assert "secret" not in str(error.value)


@pytest.mark.parametrize("address, why", [
    ("http://archive.example:8042", "in the clear"), ("ftp://127.0.0.1", "expected an address"),
    ("http://user:pw@127.0.0.1", "seen by all users"), ("127.0.0.1:8042", "expected an address")])
def test_addresses_that_are_refused(address, why):
    with pytest.raises(InputError, match=why):
        Web(address, Access())
    if why == "in the clear":
        Web(address, Access(plain_http=True))


def test_the_first_look_at_orthanc(web, place):
    """Changes of all kinds become waiting series; another data base at the same address is begun anew."""
    web.answers["GET", "/system"] = 200, {"DatabaseVersion": 6}
    web.answers["GET", "/instances/i1"] = 200, {"ParentSeries": "s9"}
    web.answers["GET", "/changes"] = 200, {"Done": True, "Last": 7, "Changes": [
        {"ChangeType": kind, "ID": name} for kind, name in (
            ("NewSeries", "s1"), ("NewPatient", "p"), ("StableStudy", "t"), ("StableSeries", "s2"),
            ("NewInstance", "i1"), ("NewInstance", "deleted"))]}
    here = place()
    archive = orthanc.Orthanc(Web(web.address, Access()))
    archive.look(here)
    assert list(here.waiting()) == ["s1", "s2", "s9"] and here.fact("seen") == 7
    here.advance(900, {})
    archive.look(here)
    assert "since=0&" in web.asked[-2][1] or any("since=0&" in path for _, path, *_ in web.asked[-3:])
    web.answers["GET", "/system"] = 200, {}
    with pytest.raises(InputError, match="no Orthanc"):
        orthanc.Orthanc(Web(web.address, Access()))


def test_files_in_multipart_answers():
    body = b"\r\n--abc\r\nContent-Type: application/dicom\r\n\r\nDATA\r\n\r\nMORE\r\n--abc--\r\n"
    for kind in ('multipart/related; type="application/dicom"; boundary=abc', 'multipart/related; boundary="abc"'):
        assert dicomweb._only_part(kind, body) == dicomweb._only_part(kind, body[2:]) == b"DATA\r\n\r\nMORE"
    assert dicomweb._only_part("application/dicom", b"DATA") == b"DATA"
    for wrong in (b"", body.replace(b"MORE", b"\r\n--abc\r\n\r\ntwo"), body[:20]):
        with pytest.raises(RefusedError):
            dicomweb._only_part("multipart/related; boundary=abc", wrong)


@pytest.mark.parametrize("code, said, good", [
    (200, {"00081199": {"Value": [{}]}}, True), (202, {"00081198": {"Value": [{"00081197": {"Value": [273]}}]}}, True),
    (409, {"00081198": {"Value": [{"00081197": {"Value": [273]}}]}}, True),  # 0x0111: it is there already
    (409, {"00081198": {"Value": [{"00081197": {"Value": [43264]}}]}}, False), (409, b"", False)])
def test_what_an_archive_says_to_a_report(web, code, said, good):
    web.answers["GET", "/studies"], web.answers["POST", "/studies"] = (200, []), (code, said)
    archive = dicomweb.DicomWeb(Web(web.address, Access()))
    if good:
        archive.store(b"\0DATA\r\n")
    else:
        with pytest.raises(RefusedError):
            archive.store(b"\0DATA\r\n")
    head, body = web.asked[-1][2], web.asked[-1][3]
    assert dicomweb._only_part(head["Content-Type"], body) == b"\0DATA\r\n"


def test_dicomweb_series_are_worked_on_when_two_looks_agree(web, place):
    def row(uid, films, maker="Acme"):
        return {"0020000D": {"Value": ["1.9"]}, "0020000E": {"Value": [uid]}, "00201209": {"Value": [films]},
                "00080070": {"Value": [maker]}}

    web.answers["GET", "/studies"] = web.answers["GET", "/studies/1.9/series/1.1/instances"] = 200, []
    web.answers["GET", "/series"] = 200, [row("1.1", 1), row("1.2", 2, "chexpert_hier")]
    archive, here = dicomweb.DicomWeb(Web(web.address, Access()), "20261101-"), place()

    def looked():
        archive.look(here)
        return {name: about["same"] for name, about in here.waiting().items()}

    assert looked() == {"1.1": False} and "StudyDate=20261101-" in web.asked[-1][1]
    assert archive.series("1.1", here.waiting()["1.1"], here) is None
    web.answers["GET", "/series"] = 200, [row("1.1", 2)]
    assert looked() == {"1.1": False} and looked() == {"1.1": True}
    here.finish("1.1", 2)
    assert looked() == {}
    web.answers["GET", "/series"] = 200, [row("1.1", 3)]
    assert looked() == {"1.1": False}
    web.answers["GET", "/series"] = 200, []  # taken out of the archive
    assert looked() == {"1.1": True}
    with pytest.raises(GoneError):
        archive.series("1.1", here.waiting()["1.1"], here)


def test_searches_are_read_to_their_end(web):
    """An archive that gives three rows at most, and one that knows no offset."""
    web.answers["GET", "/studies"] = 200, []
    archive = dicomweb.DicomWeb(Web(web.address, Access()))
    rows = [{"0020000E": {"Value": [str(k)]}} for k in range(8)]
    web.answers["GET", "/series", "pages"] = lambda offset: rows[offset:offset + 3]
    assert list(archive._pages("/series")) == rows
    web.answers["GET", "/series", "pages"] = lambda offset: rows
    assert list(archive._pages("/series")) == rows


def test_modalities_in_words():
    assert other_modality("dx ") == other_modality("") == "" and other_modality("MR") == "modality is MR, not CR or DX"
    assert "something else" in other_modality("Quillfeather")


@pytest.mark.parametrize("arguments, why", [
    (["--orthanc", "http://127.0.0.1:9"], "does not answer; is it running"),
    (["--dicomweb", "http://127.0.0.1:9"], "does not answer"),
    (["--dicomweb", "http://127.0.0.1:9", "--send-to", "A"], "DICOMweb sends nothing on"),
    (["--orthanc", "http://127.0.0.1:9", "--study-dates", "2026-"], "is for --dicomweb"),
    (["--orthanc", "http://127.0.0.1:9", "--every", "0"], "expected seconds"),
    (["--orthanc", "http://127.0.0.1:9", "--access", "/no/such"], "No such file")])
def test_bad_arguments(arguments, why):
    with pytest.raises(InputError, match=why):
        main([*arguments, "--model", "nothing"])
