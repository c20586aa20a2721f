"""Single sign-on: identity providers, domains and what follows from an assertion. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from services._mesh.errors import Invalid, Reason, WrongState, invalid_field
from services.identity.model.membership import Role, etag
from services.identity.model.roles import APPROVER_WAIT
from services.identity.model.saml.documents import SamlRefused
from services.identity.model.saml.responses import EMAIL_FORMAT, TRANSIENT_FORMAT, Assertion

MAX_PROVIDERS, MAX_DOMAINS = 10, 100
DEFAULT_SESSION_MINUTES = 480
# So long after its record was found to be gone, a domain still brings newcomers.
GRACE = timedelta(days=3)
RECORD_PREFIX, RECORD_SAYS = "_recoup-challenge.", "recoup-domain-verification="
# A program of the person's own, such as `recoup sso login`: on the browser's machine, whatever port it got.
_LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]):[0-9]{1,5}/[A-Za-z0-9_-]{0,100}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")
# Printable ASCII but what RFC 5321 would want quoted: whoever has another address isn't let in, rather than misread.
_EMAIL = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@((?:{_LABEL}\.)+{_LABEL})", re.IGNORECASE)


class ProviderState(enum.StrEnum):
    """Where an identity provider stands."""

    SETUP = "SETUP"
    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"


@dataclass(frozen=True, slots=True)
class GroupRole:
    """A group at the provider, the role of who is in it (a custom one by its id), and who said so."""

    group: str
    role: Role
    custom_role_id: UUID | None
    granted_by: UUID | None

    @property
    def says(self) -> str:
        """What an event says of it."""
        return f"{self.group}: {self.custom_role_id or self.role.value}"


@dataclass(frozen=True, slots=True)
class Provider:
    """An identity provider as an organization has set it up. Certificates are PEM.

    `changed_at`: when what it vouches for changed last, by the person `changed_by`; `confirmed_by` is another one who
    looked at that since.
    """

    organization_id: UUID
    provider_id: UUID
    display_name: str
    state: ProviderState
    entity_id: str
    sso_url: str
    certificates: tuple[str, ...]
    metadata_url: str
    provider_initiated: bool
    email_attribute: str
    groups_attribute: str
    mfa_contexts: tuple[str, ...]
    default_role: Role | None
    session_minutes: int
    enforced: bool
    break_glass_member_id: UUID | None
    config_version: int
    tested_version: int
    version: int
    created_at: datetime
    group_roles: tuple[GroupRole, ...] = field(default=())
    changed_at: datetime | None = None
    changed_by: UUID | None = None
    confirmed_by: UUID | None = None

    @property
    def etag(self) -> str:
        """Changes with every edit."""
        return etag(self.provider_id, self.version)

    @property
    def vouches(self) -> tuple[object, ...]:
        """Who may say who somebody is, how surely, and in which groups: what all its sessions rest on."""
        sets = frozenset(self.certificates), frozenset(self.mfa_contexts)
        return self.entity_id, self.sso_url, self.email_attribute, self.groups_attribute, *sets

    @property
    def approves_from(self) -> datetime | None:
        """From when on sessions that it makes may approve; None where they may in any case."""
        if self.changed_at is None or self.confirmed_by is not None:
            return None
        return self.changed_at + APPROVER_WAIT

    @property
    def is_tested(self) -> bool:
        """Whether a test sign-in passed under today's settings."""
        return self.tested_version == self.config_version


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain that an organization says is its own; `VERIFIED` once the DNS said so.

    `missing_since`: when the record that proved it was found to be gone.
    """

    organization_id: UUID
    domain_id: UUID
    name: str
    challenge: str
    state: str
    verified_at: datetime | None
    created_at: datetime
    missing_since: datetime | None = None

    @property
    def joins_until(self) -> datetime | None:
        """Until when people in it may join who aren't members yet; None where its record is there."""
        return None if self.missing_since is None else self.missing_since + GRACE

    @property
    def record_name(self) -> str:
        """Where the TXT record must stand."""
        return RECORD_PREFIX + self.name

    @property
    def record_value(self) -> str:
        """What it must say."""
        return RECORD_SAYS + self.challenge


@dataclass(frozen=True, slots=True)
class ServiceProvider:
    """We, towards identity providers. Each provider gets a name and address of ours to itself."""

    public_url: str
    return_urls: tuple[str, ...] = ()

    def url(self, organization_id: UUID, provider_id: UUID, what: str) -> str:
        """One of a provider's addresses: metadata (our entity id as well), login, acs. Raises WrongState."""
        if not self.public_url:
            raise WrongState(
                Reason.ERROR_REASON_STATE_WRONG,
                "This installation doesn't know its own address: its operator sets sso.public_url.",
                {"state": "NO_PUBLIC_URL", "allowed": "sso.public_url set"},
            )
        return f"{self.public_url.rstrip('/')}/saml/{organization_id}/{provider_id}/{what}"

    def return_url(self, asked: str) -> str:
        """Where somebody goes on who signs in: where they ask, else the operator's first address. Raises Invalid.

        No code is ever shown to a person, who could be talked into giving it away: it goes to an address of the
        operator's, or to a program on the browser's own machine (RFC 8252, section 7.3).
        """
        url = asked or next(iter(self.return_urls), "")
        if url not in self.return_urls and not _LOOPBACK.fullmatch(url):
            raise invalid_field(
                "return_to",
                "must be one of the addresses that the operator allows (sso.return_urls), or http://127.0.0.1:PORT/NAME",
            )
        return url


def domain_name(given: str) -> str:
    """A domain in its one spelling: lower case, ASCII. Raises Invalid."""
    name = given.strip().rstrip(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError as error:
            raise invalid_field("name", "must be a domain name, such as acme.example") from error
    if len(name) > 253 or not _DOMAIN.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise invalid_field("name", "must be a domain name with two labels or more, such as acme.example")
    return name


def domain_of(email: str) -> str:
    """The domain of an address, in lower case. Raises SamlRefused for what isn't a plain address."""
    found = _EMAIL.fullmatch(email)
    if found is None or len(email) > 254:
        raise SamlRefused("EMAIL", "The person's address is missing or isn't a plain e-mail address.")
    return found.group(1).lower()


def is_inside(email: str, proven: Collection[str]) -> bool:
    """Whether it is a plain address in one of these domains."""
    try:
        return domain_of(email) in proven
    except SamlRefused:
        return False


def address_of(provider: Provider, assertion: Assertion) -> str:
    """The person's address, from the mapped attribute, or else from a NameID that is one. Raises SamlRefused."""
    if provider.email_attribute:
        values = assertion.attributes.get(provider.email_attribute, ())
        if len(values) != 1:
            raise SamlRefused("EMAIL", f"The attribute {provider.email_attribute[:100]} must have exactly one value.")
        return values[0]
    if assertion.name_id_format != EMAIL_FORMAT:
        raise SamlRefused("EMAIL", "No attribute is mapped to the address, and the NameID isn't one.")
    return assertion.name_id


def require_proven(email: str, proven: Collection[str]) -> None:
    """Raise SamlRefused unless the address is in a domain that this very organization has proven."""
    if domain_of(email) not in proven:
        raise SamlRefused("DOMAIN", "The person's domain isn't proven to be this organization's.")


def require_joining(email: str, joinable: Collection[str]) -> None:
    """Raise SamlRefused for a newcomer of a domain whose record is gone."""
    if not is_inside(email, joinable):
        raise SamlRefused(
            "DOMAIN_GONE", "The DNS record that proves the person's domain is gone: nobody new is let in."
        )


def require_lasting(assertion: Assertion) -> None:
    """Raise SamlRefused for a NameID that names somebody else the next time."""
    if assertion.name_id_format == TRANSIENT_FORMAT:
        raise SamlRefused("NAME_ID", "The NameID is transient: the provider must send a persistent one.")


def role_of(provider: Provider, attributes: Mapping[str, Sequence[str]]) -> GroupRole:
    """What somebody's groups give: the first listed one that they are in, or else the default. Raises SamlRefused."""
    groups = attributes.get(provider.groups_attribute, ()) if provider.groups_attribute else ()
    found = next((each for each in provider.group_roles if each.group in groups), None)
    if found is None and provider.default_role is None:
        raise SamlRefused("ROLE", "No group of the person has a role here, and there is no default role.")
    return found or GroupRole("", provider.default_role or Role.VIEWER, None, None)


def aal_of(provider: Provider, authn_context: str) -> int:
    """The assurance level: 2 only for what the organization says is a second factor."""
    return 2 if authn_context in provider.mfa_contexts else 1


def require_set_up(provider: Provider, proven: Collection[str]) -> None:
    """Raise WrongState unless it can sign anybody in."""
    lacks = "metadata" if not provider.certificates else "a proven domain" if not proven else ""
    if lacks:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"The identity provider lacks {lacks}.",
            {"state": provider.state.value, "allowed": f"with {lacks}"},
        )


def refusal(refused: SamlRefused, field_name: str) -> Invalid:
    """What a refused document means for who sent it to us on purpose."""
    return Invalid(Reason.ERROR_REASON_SAML_REFUSED, f"{field_name}: {refused.message}", {"cause": refused.cause})


def reads(provider: Provider) -> dict[str, object]:
    """What an event says of a provider: nothing secret and nobody's address."""
    from services.identity.model.saml.certificates import fingerprint

    return {
        "display_name": provider.display_name,
        "state": provider.state.value,
        "entity_id": provider.entity_id,
        "sso_url": provider.sso_url,
        "certificates": [fingerprint(each) for each in provider.certificates],
        "provider_initiated": provider.provider_initiated,
        "email_attribute": provider.email_attribute,
        "groups_attribute": provider.groups_attribute,
        "mfa_contexts": list(provider.mfa_contexts),
        "default_role": provider.default_role.value if provider.default_role else "",
        "session_minutes": provider.session_minutes,
        "enforced": provider.enforced,
        "break_glass_member_id": str(provider.break_glass_member_id or ""),
    }
