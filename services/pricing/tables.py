"""Pricing's tables, as SQLAlchemy Core sees them. The migrations are what makes them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, MetaData, Numeric, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

metadata = MetaData(schema="pricing")
_Id = UUID(as_uuid=True)
_Moment = DateTime(timezone=True)

bill_sources = Table(
    "bill_sources",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("bill_source_id", _Id, primary_key=True),
    Column("connection_id", _Id, nullable=False),
    Column("credential_id", _Id, nullable=False),
    Column("account", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("bucket", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", _Moment, nullable=False),
)

bill_imports = Table(
    "bill_imports",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("bill_import_id", _Id, primary_key=True),
    Column("bill_source_id", _Id, nullable=False),
    Column("state", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("problem_row", BigInteger, nullable=False),
    Column("problem_column", Text, nullable=False),
    Column("created_at", _Moment, nullable=False),
    Column("started_at", _Moment),
    Column("finished_at", _Moment),
)

bill_batches = Table(
    "bill_batches",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("batch_id", _Id, primary_key=True),
    Column("bill_source_id", _Id, nullable=False),
    Column("bill_import_id", _Id, nullable=False),
    Column("billing_period", Date, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("provenance", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("object_version", Text, nullable=False),
    Column("accounts", ARRAY(Text), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("complete_through", Date),
    Column("period_closed", Boolean, nullable=False),
    Column("imported_at", _Moment, nullable=False),
    Column("is_current", Boolean, nullable=False),
    Column("replaced_accounts", ARRAY(Text), nullable=False),
)

bill_days = Table(
    "bill_days",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("bill_import_id", _Id, primary_key=True),
    Column("batch_id", _Id, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("day", Date, primary_key=True),
)

daily_costs = Table(
    "daily_costs",
    metadata,
    Column("organization_id", _Id, primary_key=True),
    Column("bill_import_id", _Id, primary_key=True),
    Column("batch_id", _Id, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("resource_id", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("kind", Text, nullable=False),
    Column("sku_id", Text, nullable=False),
    Column("sku_price_id", Text, nullable=False),
    Column("pricing_category", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("quantity", Numeric, nullable=False),
    Column("effective_cost", Numeric, nullable=False),
    Column("billed_cost", Numeric, nullable=False),
    Column("list_cost", Numeric, nullable=False),
    Column("contracted_cost", Numeric),
    Column("rows", BigInteger, nullable=False),
)
