"""The API says of a checkpoint that it was given up: it is the API that buries a job which no worker finishes.

The version before this one may run meanwhile: a grant takes nothing away from it.
"""

from alembic import op

from services._mesh.schema import run

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Change the tables of actions."""
    run(op.execute, ["GRANT UPDATE (explanation) ON actions.checkpoints TO actions_api"])
