"""The typed client's long work, lists and settings, without a mesh."""

from __future__ import annotations

from pathlib import Path

import pytest

from recoup.broker.v1 import broker_service_pb2_grpc
from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2, scanner_service_pb2_grpc
from recoup_client import operations
from recoup_client.calling import process_of, read_installation
from recoup_client.operations import BlockingOperation, Operation
from recoup_client.paging import blocking_pages, pages

STATES = (0, 0, 1, 1, 1, 2)


class Work:
    """Goes on by one state each time somebody looks; 2 is its end."""

    def __init__(self, states: tuple[int, ...] = STATES) -> None:
        self._left = list(states)

    def look(self) -> int:
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]

    async def wait(self) -> int:
        return self.look()


async def test_each_state_on_the_way_is_told_once_and_the_end_is_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_FIRST_PAUSE", 0.001)
    assert [each async for each in Operation(Work().wait, lambda state: state == 2).progress()] == [0, 1, 2]
    assert await Operation(Work().wait, lambda state: state == 2) == 2
    assert list(BlockingOperation(Work().look, lambda state: state == 2).progress()) == [0, 1, 2]
    assert BlockingOperation(Work().look, lambda state: state == 2).result() == 2
    # What is over already is told at once.
    assert [each async for each in Operation(Work((2,)).wait, lambda state: state == 2).progress(0.0)] == [2]


async def test_waiting_has_an_end_though_the_work_has_none() -> None:
    with pytest.raises(TimeoutError, match=r"after 0.3 s, and goes on"):
        await Operation(Work((1,)).wait, lambda state: state == 2).result(0.3)
    with pytest.raises(TimeoutError, match=r"after 0.3 s, and goes on"):
        BlockingOperation(Work((1,)).look, lambda state: state == 2).result(0.3)


def test_a_list_is_read_to_its_last_page_and_the_request_stays_as_it_was() -> None:
    asked = []

    def page(request: scanner_service_pb2.ListScansRequest) -> scanner_service_pb2.ListScansResponse:
        asked.append((request.page_size, request.page_token))
        place = int(request.page_token or "0")
        scans = [scanner_pb2.Scan(scan_id=f"{place}{n}") for n in range(place)]  # The first page is empty.
        return scanner_service_pb2.ListScansResponse(scans=scans, next_page_token=str(place + 1) if place < 2 else "")

    request = scanner_service_pb2.ListScansRequest(page_size=2)
    found = [scan.scan_id for scan in blocking_pages(page, request).items(lambda each: each.scans)]
    assert found == ["10", "20", "21"]
    assert asked == [(2, ""), (2, "1"), (2, "2")]
    assert request.page_token == ""


async def test_no_page_is_asked_for_before_it_is_wanted() -> None:
    asked = []

    async def page(request: scanner_service_pb2.ListScansRequest) -> scanner_service_pb2.ListScansResponse:
        asked.append(request.page_token)
        return scanner_service_pb2.ListScansResponse(next_page_token="more")

    async for _ in pages(page, scanner_service_pb2.ListScansRequest()):
        break
    assert asked == [""]


def test_a_stub_says_which_process_serves_it() -> None:
    addresses = {"identity": "a:1", "scanner": "b:2"}
    assert process_of(scanner_service_pb2_grpc.ScannerServiceStub, addresses) == "scanner"
    with pytest.raises(ValueError, match="addresses must say where broker is"):
        process_of(broker_service_pb2_grpc.BrokerServiceStub, addresses)
    with pytest.raises(ValueError, match="ScannerServiceServicer is no stub"):
        process_of(scanner_service_pb2_grpc.ScannerServiceServicer, addresses)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lacks addresses"),
        ("[addresses]\nidentity = 'a:1'", "lacks certificate"),
        ("[addresses]\nidentity = 'a:1'\n[certificate]\nca = 'a'\ncert = 'b'", "lacks key"),
        ("[addresses]\nscanner = 'a:1'\n[certificate]\nca = 'a'\ncert = 'b'\nkey = 'c'", "where identity is"),
        ("addresses = 1\n[certificate]\nca = 'a'\ncert = 'b'\nkey = 'c'", "must be tables"),
        ("[addresses]\nidentity = 'a:1'\n[certificate]\nca = 1\ncert = 'b'\nkey = 'c'", "must be tables"),
        ("addresses", "isn't TOML"),
    ],
)
def test_settings_that_cant_be_used_say_why(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mesh.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_installation(path)


def test_files_of_the_certificate_are_relative_to_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "mesh.toml"
    path.write_text("[addresses]\nidentity = 'a:1'\n[certificate]\nca = 'ca.pem'\ncert = 'b'\nkey = '/c'")
    addresses, certificate = read_installation(path)
    assert addresses == {"identity": "a:1"}
    assert (certificate.ca, certificate.key) == (tmp_path / "ca.pem", Path("/c"))
