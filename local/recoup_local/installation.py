"""Writes an installation to disk: certificates, keys, passwords, and one configuration file for each process."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recoup_local import backing_up, keys
from recoup_local.ca import LocalCa, write_secret
from recoup_local.embedded.nats import NatsUser, TlsFiles, free_port
from recoup_local.embedded.postgres import PostgresHandle
from recoup_local.issuer import AUDIENCE, ISSUER, Issuer, people_file
from recoup_local.layout import KEYS_DATABASE, KEYS_LOGINS, LOGINS, PLANNED, PROCESSES, ProcessSpec

Table = dict[str, Any]


@dataclass(frozen=True)
class Surroundings:
    """Where the parts around the processes are, once they run. `aws` is empty when there is no emulated cloud."""

    postgres: PostgresHandle
    nats_url: str
    jwks: str
    otlp: str
    aws: str
    dns: str


class Installation:
    """The files of one installation under `state`."""

    def __init__(self, state: Path) -> None:
        self.state = state
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._forget()
        self.ca = LocalCa(state / "ca")
        self.trust = state / "trust"
        self.clock_file = state / "clock.json"
        self.evidence = state / "evidence"
        self.evidence.mkdir(exist_ok=True, mode=0o700)
        self.failpoints: Path | None = None  # A folder, where tests say what is to happen at which failpoint.
        self.trace_ratio = 1.0  # All of them: `recoup trace` shows any request.
        self.issuer = Issuer(state / "issuer")
        self.ports = {spec.name: free_port() for spec in PROCESSES}
        self.metrics_ports = {spec.name: free_port() for spec in PROCESSES}
        self.ports["gateway-rest"] = free_port()
        self.ports["audit-witness-https"] = free_port()
        self.passwords = {
            f"{service}_{login}": secrets.token_urlsafe(24)
            for service, logins in {**LOGINS, "subjects": KEYS_LOGINS}.items()
            for login in logins
        }
        self.passwords["backup_reader"] = secrets.token_urlsafe(24)
        self.nats_passwords = {spec.name: secrets.token_urlsafe(24) for spec in PROCESSES if spec.nats}
        self._certificates()
        self._keys()

    def folder(self, process: str) -> Path:
        """The folder of one process, closed to others."""
        return self.state / "processes" / process

    def config_file(self, process: str) -> Path:
        """The configuration file of one process."""
        return self.folder(process) / "config.toml"

    def _forget(self) -> None:
        """What an earlier mesh here knew. Its database went with it, and each installation has a log of its own."""
        for name in (*(spec.name for spec in PROCESSES), *PLANNED, backing_up.NAME):
            shutil.rmtree(self.folder(name), ignore_errors=True)
        shutil.rmtree(self.state / "nats" / "store", ignore_errors=True)

    def _certificates(self) -> None:
        for spec in PROCESSES:
            self.ca.issue(spec.name, self.folder(spec.name), dns=(spec.name,))
            shutil.copyfile(self.ca.cert_file, self.folder(spec.name) / "ca.pem")
        for name in PLANNED:
            self.ca.issue(name, self.folder(name), dns=(name,))
            shutil.copyfile(self.ca.cert_file, self.folder(name) / "ca.pem")
        self.ca.issue("nats", self.state / "nats-tls", dns=("nats",))
        for team in ("finops-tools", "tests"):
            folder = self.state / "clients" / team
            self.ca.issue(f"client/{team}", folder, dns=(team,))
            (folder / "mesh.toml").write_text(self._told_to_teams())

    def _told_to_teams(self) -> str:
        """What a typed client is told of this mesh (docs/for/INTERNAL-TEAMS.md). Its files lie beside it."""
        served = ("identity", "scanner", "pricing", "actions", "audit")
        addresses = [f'{name} = "127.0.0.1:{self.ports[name]}"' for name in served]
        files = ['ca = "../../ca/ca.pem"', 'cert = "tls.pem"', 'key = "tls.key"']
        return "\n".join(["[addresses]", *addresses, "[certificate]", *files, ""])

    def _keys(self) -> None:
        self.trust.mkdir(exist_ok=True)
        for spec in PROCESSES:
            if spec.signs:
                keys.signing_key(self.folder(spec.name), spec.name, self.trust)
        self.ring = keys.kek(self.folder("scanner"), self.folder("broker"))
        self.backup_ring = backing_up.make_keys(self.folder(backing_up.NAME))
        self.subject_kek = keys.subject_kek(self.folder("audit"))
        origin = f"recoup-{secrets.token_hex(4)}.local.invalid/log"
        witness, self.offline = self.folder("audit-witness"), self.state / "offline"
        self.witness = keys.witness_key(witness, f"witness-{origin.removesuffix('/log')}")
        folders = keys.LogFolders(
            self.folder("audit-signer"), self.folder("actions"), self.folder("audit"), self.offline
        )
        self.log = keys.log_keys(folders, origin, self.witness)
        (self.state / "log.vkey").write_text(self.log.verifier_key + "\n")
        (self.state / "root.vkey").write_text(self.log.root_verifier_key + "\n")
        (witness / "state").mkdir(exist_ok=True, mode=0o700)
        (witness / "logs.vkeys").write_text(self.log.verifier_key + "\n")
        for name in ("identity", "scanner", "pricing", "actions", "audit"):
            write_secret(self.folder(name) / "page.key", secrets.token_bytes(32))
        write_secret(self.folder("audit") / "actor.key", secrets.token_bytes(32))

    def nats_tls(self) -> TlsFiles:
        """The NATS server's certificate."""
        folder = self.state / "nats-tls"
        return TlsFiles(self.ca.cert_file, folder / "tls.pem", folder / "tls.key")

    def nats_users(self) -> list[NatsUser]:
        """A user for each process that uses NATS, with its own subjects."""
        return [
            NatsUser(spec.name, self.nats_passwords[spec.name], spec.publishes, spec.subscribes)
            for spec in PROCESSES
            if spec.nats
        ]

    def people(self) -> Path:
        """The organizations and people for identity's bootstrap."""
        path = self.state / "people.toml"
        path.write_text(people_file())
        return path

    def write_configs(self, around: Surroundings) -> None:
        """Write every process's configuration."""
        for spec in PROCESSES:
            self._write(spec, around)
        command = backing_up.sections(self, self.backup_ring, around.postgres)
        write_secret(self.config_file(backing_up.NAME), _toml(command))

    def _write(self, spec: ProcessSpec, around: Surroundings) -> None:
        folder = self.folder(spec.name)
        tables: dict[str, Table] = {
            "process": {
                "name": spec.name,
                "profile": "local",
                "listen": f"127.0.0.1:{self.ports[spec.name]}",
                "metrics": f"127.0.0.1:{self.metrics_ports[spec.name]}",
                "log_level": os.environ.get("RECOUP_LOG_LEVEL", "info"),
            },
            "tls": {"ca": "ca.pem", "cert": "tls.pem", "key": "tls.key"},
            "trust": {"dir": str(self.trust)},
            "peers": {peer: f"127.0.0.1:{self.ports[peer]}" for peer in spec.peers},
            "otlp": {"endpoint": around.otlp, "ratio": self.trace_ratio, "every_seconds": 1.0},
            "clock": {"file": str(self.clock_file)},
        }
        if self.failpoints is not None:
            tables["failpoints"] = {"folder": str(self.failpoints)}
        if spec.schema:
            tables |= self._database(spec, around.postgres)
        if spec.nats:
            write_secret(folder / "nats.password", self.nats_passwords[spec.name])
            tables["nats"] = {"url": around.nats_url, "user": spec.name, "password_file": "nats.password"}
        if spec.signs:
            tables["signing"] = {"key": "signing.key"}
        _join(tables, self._own(spec.name, around))
        write_secret(self.config_file(spec.name), _toml(tables))

    def _database(self, spec: ProcessSpec, postgres: PostgresHandle) -> dict[str, Table]:
        folder, tables = self.folder(spec.name), {}

        def role(login: str) -> Table:
            user = f"{spec.schema}_{login}"
            write_secret(folder / f"{login}.password", self.passwords[user])
            return {"user": user, "password_file": f"{login}.password"}

        tables["database"] = {
            "host": str(postgres.socket_dir),
            "port": postgres.port,
            "dbname": postgres.dbname,
            **role(spec.login),
        }
        for task in spec.tasks:
            if task in ("relay", "dispatcher"):
                tables[f"database.{task}"] = role(task)
        return tables

    def _own(self, name: str, around: Surroundings) -> dict[str, Table]:
        """The sections that only one process has."""
        aws = {"aws": {"endpoint_url": around.aws}}
        own: Mapping[str, dict[str, Table]] = {
            "identity": {
                "sessions": {"issuer": ISSUER, "audience": AUDIENCE, "jwks": around.jwks},
                "passports": {"page_key": "page.key"},
                "sso": {
                    "public_url": f"https://localhost:{self.ports['gateway-rest']}",
                    "nameservers": [around.dns],
                },
            },
            "audit": {
                "log.sequencer": self._audit_role("sequencer"),
                "archive": {"folder": str(self.state / "archive"), "seconds": 5.0, "checkpoint_seconds": 5.0},
                "archive.reader": self._audit_role("archiver"),
                "log.checker": self._audit_role("checker"),
                "log": {
                    "name": self.log.origin,
                    "page_key": "page.key",
                    "actor_key": "actor.key",
                    "heads_seconds": 5.0,
                    "witnesses": [self._witness()],
                },
                **self._subjects(around.postgres),
                "evidence": {"folder": str(self.evidence), "key": "evidence.key"},
            },
            "audit-worker": {"evidence": {"folder": str(self.evidence)}},
            "audit-signer": {
                "signer": {
                    "origin": self.log.origin,
                    "key": self.log.signer_key.name,
                    "state": "signed.json",
                    "manifest": self.log.manifest.name,
                    "root": self.log.root_verifier_key,
                    "more_keys": "keys",
                }
            },
            "audit-witness": {
                "witness": {
                    "listen": f"127.0.0.1:{self.ports['audit-witness-https']}",
                    "name": self.witness.name,
                    "key": self.witness.path.name,
                    "state": "state",
                    "log_keys": "logs.vkeys",
                }
            },
            # The emulated cloud knows no principal of ours, so that everybody connects with a base user's key.
            "scanner": {
                "scanner": {"page_key": "page.key", "static_keys": "allowed"},
                "kms": self._kms(self.ring.sealing),
            },
            "pricing": {"pricing": {"page_key": "page.key"}},
            "pricing-worker": aws,
            "actions": {"actions": {"page_key": "page.key", "receipt_key": self.log.receipt_key.name}},
            # The emulated cloud is consistent at once, so that an unknown outcome is looked at again soon.
            "actions-worker": {**aws, "execution": {"settle_seconds": 1.0, "poll_seconds": 0.5}},
            "broker": {"kms": self._kms(self.ring.opening), **aws},
            # A week, since a demo lives through five of them in a minute or two.
            "scanner-worker": {**aws, "checking": {"every_hours": 168.0}},
            # One machine is one address, and one person does what many do elsewhere: what slows those down would slow
            # down everybody here.
            "gateway": {
                "gateway": {
                    "listen": f"127.0.0.1:{self.ports['gateway-rest']}",
                    "writes_a_second": 100.0,
                    "write_burst": 500,
                    "strangers_a_second": 500.0,
                    "stranger_burst": 5000,
                    "shared": "nats",
                    "leaving_seconds": 0.5,
                }
            },
        }
        return own.get(name, {})

    def _subjects(self, postgres: PostgresHandle) -> dict[str, Table]:
        """The database of subjects' keys, and who audit is there."""
        folder = self.folder("audit")

        def role(login: str) -> Table:
            user = f"subjects_{login}"
            write_secret(folder / f"{user}.password", self.passwords[user])
            return {"user": user, "password_file": f"{user}.password"}

        where = {"host": str(postgres.socket_dir), "port": postgres.port, "dbname": KEYS_DATABASE}
        return {
            "subjects": {"kek": self.subject_kek.name},
            "subjects.database": {**where, **role("api")},
            "subjects.sealer": role("sealer"),
            "subjects.eraser": role("eraser"),
        }

    def _kms(self, file: Path) -> Table:
        return {"services": ["file"], "kek": f"{self.ring.name}/{{organization_id}}/1", "file": file.name}

    def _audit_role(self, task: str) -> Table:
        write_secret(self.folder("audit") / f"{task}.password", self.passwords[f"audit_{task}"])
        return {"user": f"audit_{task}", "password_file": f"{task}.password"}

    def _witness(self) -> Table:
        url = f"https://localhost:{self.ports['audit-witness-https']}"
        return {"url": url, "vkey": self.witness.verifier_key, "ca": "ca.pem"}


def _join(tables: dict[str, Table], more: Mapping[str, Table]) -> None:
    for name, table in more.items():
        tables.setdefault(name, {}).update(table)


def _toml(tables: Mapping[str, Table]) -> str:
    """TOML of flat tables; JSON's strings, numbers and lists are TOML's too, and lists may hold flat tables."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{json.dumps(key)} = {_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {_value(each)}' for key, each in value.items())}}}"
    return f"[{', '.join(map(_value, value))}]" if isinstance(value, list) else json.dumps(value)
