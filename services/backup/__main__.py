"""`python -m services.backup …`: the same as `recoup backup …`."""

from services.backup.command import backup

if __name__ == "__main__":
    backup(prog_name="recoup backup")
