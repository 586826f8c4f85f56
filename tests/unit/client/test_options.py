"""The client's options: which time is meant, which server, and what is refused before anything is sent."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import pytest
from click.testing import CliRunner

from latchkey.cli.commands import latchkey
from latchkey.cli.connection import Reach, connect, is_loopback
from latchkey.cli.failures import Failure
from latchkey.cli.ranges import Bucket, Last, Range, between, given, instant_text, last, moment, slot, slots, suitable

UTC_ZONE, BERLIN, KOLKATA = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")
NOW = datetime(2026, 11, 26, 4, 33, 10, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("stretch", "zone", "start", "end"),
    [
        (Last.WEEK, UTC_ZONE, "2026-11-20 00:00", "2026-11-27 00:00"),
        (Last.MONTH, UTC_ZONE, "2026-10-28 00:00", "2026-11-27 00:00"),
        (Last.WEEK, BERLIN, "2026-11-19 23:00", "2026-11-26 23:00"),
        # Clocks went back on 25 October: the days are whole all the same.
        (Last.MONTH, ZoneInfo("America/New_York"), "2026-10-27 04:00", "2026-11-26 05:00"),
        (Last.DAY, UTC_ZONE, "2026-11-25 05:00", "2026-11-26 05:00"),
        (Last.DAY, KOLKATA, "2026-11-25 05:30", "2026-11-26 05:30"),
    ],
)
def test_the_last_stretch_is_whole_days_or_hours_of_the_zone(
    stretch: Last, zone: ZoneInfo, start: str, end: str
) -> None:
    assert last(stretch, NOW, zone) == Range(at(start), at(end), zone)


def test_a_given_range_is_widened_to_quarter_hours_and_ends_now_unless_told() -> None:
    assert given(at("2026-11-25 10:07:30"), None, NOW, UTC_ZONE) == Range(
        at("2026-11-25 10:00"), at("2026-11-26 04:45"), UTC_ZONE
    )
    assert given(None, at("2026-11-26 10:00"), NOW, UTC_ZONE).start == at("2026-11-19 10:00")


@pytest.mark.parametrize(
    ("text", "zone", "instant"),
    [
        ("2026-11-22", UTC_ZONE, "2026-11-22 00:00"),
        ("2026-11-22", BERLIN, "2026-11-21 23:00"),
        ("2026-07-22", BERLIN, "2026-07-21 22:00"),
        ("2026-11-22T12:30", KOLKATA, "2026-11-22 07:00"),
        ("2026-11-22 12:30:00z", KOLKATA, "2026-11-22 12:30"),
        ("2026-11-22T12:30+02:00", KOLKATA, "2026-11-22 10:30"),
    ],
)
def test_a_date_or_time_is_of_the_zone_unless_it_has_an_offset(text: str, zone: ZoneInfo, instant: str) -> None:
    assert moment(text, zone) == at(instant)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "22.11.2026", "0001-01-01", "9999-12-31T23:59-10:00"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a date such as"):
        moment(text, BERLIN)


def test_the_hour_that_is_lived_twice_has_one_slot() -> None:
    covered = between(at("2026-10-24 22:00"), at("2026-10-25 23:00"), BERLIN)

    assert len(slots(covered, Bucket.HOUR)) == 24
    assert slot(at("2026-10-25 00:30"), Bucket.HOUR, BERLIN) == slot(at("2026-10-25 01:30"), Bucket.HOUR, BERLIN)


@pytest.mark.parametrize(
    ("end", "bucket"),
    [
        ("2026-01-01 02:00", Bucket.QUARTER),
        ("2026-01-02 00:00", Bucket.HOUR),
        ("2026-01-08 00:00", Bucket.DAY),
        ("2026-12-01 00:00", Bucket.WEEK),
        ("2030-01-01 00:00", Bucket.MONTH),
    ],
)
def test_a_range_is_divided_as_suits_its_length(end: str, bucket: Bucket) -> None:
    covered = between(at("2026-01-01 00:00"), at(end), UTC_ZONE)

    assert suitable(covered) is bucket
    assert len(slots(covered, bucket)) <= 93


def test_an_instant_of_a_range_is_told_as_a_date_where_it_is_one() -> None:
    assert instant_text(at("2026-11-21 23:00"), BERLIN) == "2026-11-22"
    assert instant_text(at("2026-11-21 23:15"), BERLIN) == "2026-11-22 00:15"


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:50051", True),
        ("127.1.2.3:1", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("unix:/run/latchkey", True),
        ("10.0.0.1:50051", False),
        ("localhost.example:50051", False),
        ("127.0.0.1.example:50051", False),
        ("[::]:50051", False),
        ("", False),
    ],
)
def test_only_this_machine_is_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


def test_a_secret_goes_over_tls_unless_the_server_is_here_or_plaintext_is_asked_for(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("roots")

    def secure(address: str, ca: Path | None = None, tls: bool | None = None) -> bool:
        return connect(Reach(address, ca=ca, tls=tls), "lkm_secret").tls is not None

    assert not secure("127.0.0.1:50051")
    assert secure("127.0.0.1:50051", ca)
    assert secure("127.0.0.1:50051", tls=True)
    assert secure("latchkey.example:443")
    assert not secure("latchkey.example:80", tls=False)
    with pytest.raises(click.UsageError, match="are for TLS"):
        secure("127.0.0.1:50051", ca, tls=False)


def test_the_credential_comes_from_the_file_or_the_environment_and_is_one_word(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(" lkm_file\n")

    assert connect(Reach("localhost:1", file), "lkm_other").token == "lkm_file"
    assert connect(Reach("localhost:1"), "lkm_other\n").token == "lkm_other"
    for wrong in ("", " ", "two words", "münze", "a\nb"):
        with pytest.raises(Failure, match="credential"):
            connect(Reach("localhost:1"), wrong)


REFUSED = [
    (["--json", "--csv"], "--json or --csv"),
    (["--address", "localhost"], "is no host:port"),
    (["--address", "https://localhost:443"], "is no host:port"),
    (["--certificate", __file__], "go together"),
    (["--plot", "a.gif"], "must end in .png or .svg"),
    (["--zone", "America"], "is no IANA time zone"),
    (["--zone", "../etc"], "is no IANA time zone"),
    (["--from", "2026-13-01"], "is not a date"),
    (["--from", "2026-11-22", "--to", "2026-11-22"], "ends before it begins"),
    (["--from", "2026-11-22", "--last", "week"], "--last goes without"),
    (["--environment", " "], "use --unlabeled"),
    (["--environment", "a\x00b"], "control characters"),
    (["--by", "planet"], "is not one of"),
    (["--top", "1001"], "1000"),
    (["--by", "key", "import", __file__], "stand behind it"),
    (["import", "nowhere.csv"], "does not exist"),
    (["import", __file__], "say its --format"),
    (["import", "/dev/null", "--format", "csv"], "no regular file"),
    (["import", "FILE", "--column", "model"], "is no pair"),
    (["import", "FILE", "--column", "colour=Model"], "is none of"),
    (["import", "FILE", "--set", "colour=red"], "is none of"),
    (["import", "FILE", "--set", "event_id=1"], "is none of"),
    (["import", "FILE", "--price", "requests=1"], "is none of"),
    (["import", "FILE", "--price", "input_tokens=cheap"], "is not an amount"),
    (["import", "FILE", "--column", "model=Model"], "there is no column 'Model'"),
    (["import", "FILE"], "no column is key_id"),
    (["import", "FILE", "--key", "key_1"], "no column is occurred_time"),
    (["import", "FILE", "--ending-at", "soon"], "is not a date"),
]


@pytest.mark.parametrize(("arguments", "why"), REFUSED)
def test_misuse_ends_with_2_and_says_why(arguments: list[str], why: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("time,cost\n")
    told = [str(file) if argument == "FILE" else argument for argument in arguments]

    result = CliRunner().invoke(latchkey, ["usage", *told], env={"LK_TOKEN": "lkm_x", "COLUMNS": "200"})

    assert result.exit_code == 2
    assert why in result.output


def test_a_missing_credential_ends_with_1_in_one_line() -> None:
    result = CliRunner().invoke(latchkey, ["usage"], env={"LK_TOKEN": ""})

    assert result.exit_code == 1
    assert result.output.startswith("Error: no credential: put a management key's secret into LK_TOKEN")
    assert result.output.count("\n") == 1


def test_no_option_takes_a_secret() -> None:
    for arguments in (["usage", "--help"], ["usage", "import", "--help"]):
        words = {word.strip(",.") for word in CliRunner().invoke(latchkey, arguments).output.split()}
        assert {word for word in words if word.startswith("--") and ("token" in word or "secret" in word)} == {
            "--token-file"
        }


def hidden(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv[0] = 'latchkey'; import latchkey.cli as c; c.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env={"LK_TOKEN": "x"}, check=False
    )


@pytest.mark.parametrize("module", ["click", "rich", "tenacity"])
def test_without_the_extra_one_line_says_what_to_install(module: str) -> None:
    ended = hidden(module, "usage")

    assert ended.returncode == 1
    assert ended.stderr == f"latchkey: {module} is missing; install it: pip install 'latchkey-client[cli]'\n"


def test_a_picture_without_matplotlib_says_what_to_install_before_anything_is_asked() -> None:
    ended = hidden("matplotlib", "usage", "--plot", "a.png")

    assert ended.returncode == 1
    assert ended.stderr == "Error: matplotlib is missing; install it: pip install 'latchkey-client[cli,plot]'\n"


def test_matplotlib_is_not_loaded_without_a_picture() -> None:
    program = "import sys; import latchkey.cli.commands; sys.exit('matplotlib' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
