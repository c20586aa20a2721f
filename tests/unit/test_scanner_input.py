"""What people give to connect AWS: every fault names its field, the rule and the way out."""

from __future__ import annotations

from typing import Any

import pytest

from services.scanner.model.aws_input import faults
from services.scanner.model.connection import Account, NewConnection

NUMBER = "111111111111"
SCAN, ACT = f"arn:aws:iam::{NUMBER}:role/team/Scan", f"arn:aws:iam::{NUMBER}:role/Act"
KEY, SECRET = "AKIA" + "A" * 16, "s3cr3t/" + "x" * 33


def wrong(**changes: Any) -> list[tuple[str, str]]:
    account = Account(NUMBER, changes.pop("scan", SCAN), changes.pop("act", ACT))
    facts = {
        "display_name": "acme", "access_key_id": KEY, "secret_access_key": SECRET, "accounts": (account,),
        "regions": ("eu-west-1",), **changes,
    }  # fmt: skip
    return list(faults(NewConnection(**facts)))


def test_what_is_right_has_no_fault() -> None:
    assert wrong() == wrong(act="") == wrong(access_key_id="", secret_access_key="") == []
    gov = {"scan": SCAN.replace(":aws:", ":aws-us-gov:"), "act": "", "regions": ("us-gov-west-1",)}
    assert wrong(**gov) == []


@pytest.mark.parametrize("arn", ["Scan", "arn:aws:iam::1:role/x", SCAN.replace("role", "user"), f"{SCAN} ", f" {SCAN}"])
def test_a_malformed_arn_is_shown_a_right_one(arn: str) -> None:
    ((field, rule),) = wrong(scan=arn)
    assert field == "aws_accounts[0].scan_role_arn"
    assert f"arn:aws:iam::{NUMBER}:role/RecoupScan; copy it from" in rule


@pytest.mark.parametrize(
    ("changes", "field", "rule"),
    [
        ({"scan": SCAN.replace(NUMBER, "2" * 12)}, "aws_accounts[0].scan_role_arn",
         f"must be a role of account {NUMBER}, and is one of 222222222222; correct one of the two"),
        ({"scan": SCAN.replace(":aws:", ":aws-cn:")}, "aws_accounts[0].scan_role_arn",
         "must be of the regions' partition aws, and is of aws-cn; correct one of the two"),
        ({"act": SCAN}, "aws_accounts[0].act_role_arn",
         "must be another role than scan_role_arn; leave it empty to be read only"),
        ({"regions": ("eu-west-1", "cn-north-1")}, "regions",
         "must be of one partition, not of aws and aws-cn; make a connection for each"),
        ({"accounts": (Account(NUMBER, SCAN, ""), Account(NUMBER, ACT, ""))}, "aws_accounts[1].account_id",
         "must be given once; put both roles into one entry"),
        ({"access_key_id": f"{KEY}\n"}, "aws_access_key_id",
         "has a blank or a line break before or after it; copy it again without"),
        ({"secret_access_key": f" {SECRET}"}, "aws_secret_access_key",
         "has a blank or a line break before or after it; copy it again without"),
        ({"access_key_id": KEY.lower()}, "aws_access_key_id",
         "must be 16 to 128 capital letters and digits; copy it again from the key's page in IAM, or make a new key"),
        ({"secret_access_key": "s3cr3t with a blank"}, "aws_secret_access_key",
         "must be 16 to 256 characters without blanks; copy it again from the key's page in IAM, or make a new key"),
        ({"secret_access_key": ""}, "aws_secret_access_key",
         "must be given together with the other half of the key, or neither"),
    ],
)  # fmt: skip
def test_a_fault_names_its_field_the_rule_and_the_way_out(changes: dict[str, Any], field: str, rule: str) -> None:
    assert wrong(**changes) == [(field, rule)]
    assert "s3cr3t" not in rule
