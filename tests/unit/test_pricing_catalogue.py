"""The price catalogue: known figures, unknown ones, where they come from, and that the built file is what the script
builds."""

import json
from datetime import date
from decimal import Decimal
from importlib.resources import files
from itertools import islice

import pytest

from services.pricing.data import build_ec2, load_catalogue
from services.pricing.model.catalogue import Catalogue, CatalogueBroken, Price, PriceKey, PriceUnknown, prices_of

GP3 = PriceKey("aws", "us-east-1", "ebs.gp3.gb_month")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def price(figure: str = "0.08", key: PriceKey = GP3) -> Price:
    return Price(key, "GB-month", Decimal(figure), "USD", "a page", date(2024, 10, 1))


@pytest.mark.parametrize(
    ("region", "sku", "figure"),
    [
        ("us-east-1", "ebs.gp2.gb_month", "0.10"),
        ("us-east-1", "ebs.gp3.gb_month", "0.08"),
        ("us-east-1", "ebs.gp3.iops_month", "0.005"),
        ("us-east-1", "ebs.gp3.throughput_mibps_month", "0.04"),
        ("eu-west-1", "ebs.gp3.gb_month", "0.088"),
        ("eu-west-1", "ebs.snapshot.gb_month", "0.05"),
        ("eu-central-1", "ebs.gp2.gb_month", "0.119"),
        ("eu-west-1", "ec2.eip.idle_hour", "0.005"),
        ("us-east-1", "ec2.m5.large.linux_hour", "0.096"),
        ("eu-west-1", "ec2.c5.large.linux_hour", "0.096"),
    ],
)
def test_known_prices_have_source_and_date(catalogue: Catalogue, region: str, sku: str, figure: str) -> None:
    found = catalogue.get(PriceKey("aws", region, sku))
    assert (found.unit_price, found.currency) == (Decimal(figure), "USD")
    assert found.source
    assert found.source_date > date(2024, 1, 1)


@pytest.mark.parametrize(
    "key", [GP3._replace(region="mars-1"), GP3._replace(sku="ebs.gp9.gb_month"), GP3._replace(provider="gcp")]
)
def test_an_unknown_price_is_unknown_and_not_zero(catalogue: Catalogue, key: PriceKey) -> None:
    assert catalogue.find(key) is None
    with pytest.raises(PriceUnknown) as caught:
        catalogue.get(key)
    assert caught.value.key == key


def test_no_price_is_zero_or_below(catalogue: Catalogue) -> None:
    assert all(found.unit_price > 0 for found in catalogue.list())
    with pytest.raises(CatalogueBroken):
        Catalogue([price("0")])
    with pytest.raises(CatalogueBroken):
        Catalogue([price(), price("0.09")])


def test_the_version_names_the_figures_and_not_their_order_or_spelling() -> None:
    other = price(key=GP3._replace(region="eu-west-1"))
    version = Catalogue([price(), other]).version
    assert version == Catalogue([other, price("0.080")]).version
    assert version != Catalogue([price("0.0801"), other]).version
    assert version != Catalogue([price()]).version


def test_listing_goes_on_behind_a_key(catalogue: Catalogue) -> None:
    everything = [found.key for found in catalogue.list(region="us-east-1", sku_prefix="ebs.")]
    assert everything == sorted(everything)
    assert {key.region for key in everything} == {"us-east-1"}
    first = list(islice(catalogue.list(region="us-east-1", sku_prefix="ebs."), 3))
    rest = list(catalogue.list(region="us-east-1", sku_prefix="ebs.", after=first[-1].key))
    assert [found.key for found in [*first, *rest]] == everything


def test_the_ec2_file_is_what_its_script_builds() -> None:
    text = files("libcloud").joinpath("data/pricing.json").read_text("utf-8")
    document = build_ec2.build(json.loads(text, parse_float=Decimal))
    assert build_ec2.TARGET.read_text("utf-8") == build_ec2.render(document), "run services.pricing.data.build_ec2"


def test_what_the_table_has_wrong_is_left_out_and_not_guessed() -> None:
    """Zeros, and dedicated tenancy (6 % more), which libcloud's table shows for r5.large in us-east-1."""
    table = {
        "updated": 1740936978,
        "compute": {
            "ec2_linux": {
                "r5.large": {"us-east-1": Decimal("0.134"), "eu-west-1": Decimal("0.0")},
                "r5.2xlarge": {"us-east-1": Decimal("0.504"), "eu-west-1": Decimal("0.564")},
                "r5.4xlarge": {"us-east-1": Decimal("1.008"), "eu-west-1": Decimal("0.0")},
                "r5.metal": {"us-east-1": Decimal("6.048")},
            }
        },
    }
    built = {(found.key.sku, found.key.region): found.unit_price for found in prices_of(build_ec2.build(table))}
    assert built == {
        ("ec2.r5.2xlarge.linux_hour", "us-east-1"): Decimal("0.504"),
        ("ec2.r5.4xlarge.linux_hour", "us-east-1"): Decimal("1.008"),
    }
