"""Who gives up a connection that was never accepted drops its credential: the API, together with the news of it.

The version before this one may run meanwhile, and its worker drops credentials itself; its right stays for that.
"""

from alembic import op

from services._mesh.schema import run

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Let the API drop credentials."""
    run(op.execute, ["GRANT DELETE ON scanner.credentials TO scanner_api"])
