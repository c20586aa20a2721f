"""`python -m recoup_local …`: the same as `recoup local …`."""

from recoup_local.cli import local

if __name__ == "__main__":
    local()
