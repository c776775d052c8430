"""The directory as a CSV: what is written is read again, and every mistake is told with its row."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import directory_csv
from ingest.directory_csv import Problem
from ingest.directory_entry import Entry, Kind

DEVICE = Entry(kind=Kind.DEVICE, id="pump-7", tenant="acme", name="Pump 7", client="north", site="plant 2",
               supervisor="nora", type="pump")  # fmt: skip


def test_a_file_holds_all_kinds() -> None:
    """Columns in any order, some left out; a BOM from a spreadsheet and empty rows are nothing."""
    sheet = directory_csv.read(
        b"\xef\xbb\xbfid,kind,tenant,role,disabled,site,supervisor\r\n"
        b"acme,tenant,,,,,\r\n"
        b",,,,,,\r\n"
        b"auth0|7,user,acme,operator,TRUE,,\r\n"
        b'pump-7,device,acme,,,"hall 3, west",auth0|7\r\n'
        b"root,user\r\n"
    )

    assert sheet.problems == ()
    assert sheet.entries == {
        2: Entry(kind=Kind.TENANT, id="acme"),
        4: Entry(kind=Kind.USER, id="auth0|7", tenant="acme", role="operator", disabled=True),
        5: Entry(kind=Kind.DEVICE, id="pump-7", tenant="acme", site="hall 3, west", supervisor="auth0|7"),
        6: Entry(kind=Kind.USER, id="root"),
    }


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        pytest.param("planet,x,,,,,,", "kind must be tenant, client, user, device", id="kind"),
        pytest.param("device,pump 7,acme,,,,,", "the id of a device must be", id="no-topic-level"),
        pytest.param("device,+,acme,,,,,", "the id of a device must be", id="wildcard"),
        pytest.param("device,a/b,acme,,,,,", "the id of a device must be", id="two-levels"),
        pytest.param("tenant,,,,,,,", "the id of a tenant must be", id="no-id"),
        pytest.param("device,d,,,,,,", "a device needs a tenant", id="device-without-tenant"),
        pytest.param("client,c,,,,,,", "a client needs a tenant", id="client-without-tenant"),
        pytest.param("tenant,t,acme,,,,,", "a tenant has no tenant", id="tenant-in-tenant"),
        pytest.param("device,d,acme,,operator,,,", "a device has no role", id="role-of-a-device"),
        pytest.param("client,c,acme,,,,hall,", "a client has no site", id="site-of-a-client"),
        pytest.param("user,u,acme,,boss,,,", "role must be viewer, operator, engineer or admin", id="unknown-role"),
        pytest.param("user,u,,,,north,,", "needs that client's tenant", id="client-without-tenant-of-user"),
        pytest.param("user,u v,acme,,,,,", "the id of a user must be", id="space-in-user"),
        pytest.param("device,d,acme,,,no/rth,,", "client must be", id="client-no-channel-takes"),
        pytest.param("device,d,acme,a\x00b,,,,", "printable", id="nul"),
        pytest.param("device,d,acme,a\u202eb,,,,", "printable", id="right-to-left"),
        pytest.param(f"device,d,acme,{'x' * 129},,,,", "1-128 printable", id="too-long"),
        pytest.param("user,u,acme,,,,,maybe", "disabled must be true or false", id="disabled"),
        pytest.param("device,d,acme,,,,,,,", "10 cells, but 8 columns", id="too-many-cells"),
    ],
)
def test_a_wrong_row_is_told_by_its_number(row: str, problem: str) -> None:
    """And does not hide what is wrong with others."""
    text = f"kind,id,tenant,name,role,client,site,disabled\ntenant,acme,,,,,,\n{row}\n{row}\ntenant,acme\n"
    sheet = directory_csv.read(text.encode())

    assert [(one.row, problem in one.text) for one in sheet.problems] == [(3, True), (4, True), (5, False)]
    assert sheet.problems[-1].text == "tenant acme is in row 2 already"
    assert list(sheet.entries) == [2]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"", "no column kind, id", id="empty"),
        pytest.param(b"tenant,device\na,b\n", "no column kind, id", id="another-form"),
        pytest.param(b"kind,id,owner\n", "unknown or repeated columns owner", id="unknown-column"),
        pytest.param(b"kind,id,id\n", "unknown or repeated columns", id="column-twice"),
        pytest.param("kind,id\ntenant,b\u00e4r\n".encode("latin-1"), "not UTF-8", id="latin-1"),
        pytest.param("kind,id\n".encode("utf-16"), "not UTF-8", id="utf-16"),
        pytest.param(b'kind,id\ntenant,"a\n', "is no CSV", id="open-quote"),
        pytest.param(b"kind,id\n" + b"tenant,a\n" * 11, "more than 10 rows", id="too-many-rows"),
        pytest.param(b"kind,id\n" + b"\n" * 2000, "has 2008 bytes, at most 1000", id="too-large"),
    ],
)
def test_a_file_that_is_no_directory_is_refused_as_a_whole(
    data: bytes, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one sentence, and nothing of it is used."""
    monkeypatch.setattr(directory_csv, "MAX_ROWS", 10)
    monkeypatch.setattr(directory_csv, "MAX_BYTES", 1000)
    sheet = directory_csv.read(data)

    assert sheet.entries == {}
    assert len(sheet.problems) == 1
    assert problem in str(sheet.problems[0])


def test_a_problem_reads_as_a_sentence() -> None:
    """As the command line prints it."""
    assert str(Problem(3, "there is no tenant acme")) == "row 3: there is no tenant acme"


def test_no_cell_is_a_formula() -> None:
    """A spreadsheet that opens an export runs nothing."""
    text = directory_csv.write([Entry(kind=Kind.TENANT, id="t", name="=HYPERLINK(1)"), DEVICE])

    assert text.splitlines()[1] == "tenant,t,,'=HYPERLINK(1),,,,,,"
    assert not any(cell.startswith(("=", "+", "@")) for line in text.splitlines() for cell in line.split(","))


names = st.none() | st.text(
    st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=20
).filter(lambda text: text.strip() == text and text.isprintable())


@settings(max_examples=60)
@given(names, names, st.booleans())
def test_what_is_written_is_read_again(name: str | None, site: str | None, disabled: bool) -> None:
    """Quotes, commas, signs that look like formulas, letters of all scripts."""
    entries = [
        Entry(kind=Kind.USER, id="u", tenant="t", name=name, disabled=disabled),
        Entry(kind=Kind.DEVICE, id="-d", tenant="t", name=name, site=site),
    ]
    sheet = directory_csv.read(directory_csv.write(entries).encode())

    assert (list(sheet.entries.values()), sheet.problems) == (entries, ())
