"""Server URLs in settings."""

import re
import urllib.parse


def addresses(url: str) -> str:
    """Return the host and port of each server in a broker URL, with neither user nor password: for logs."""
    parts = [urllib.parse.urlsplit(one) for one in url.split(";")]
    return ", ".join(one.netloc.rpartition("@")[2] or one.path for one in parts)


def require_plain(url: str, *, many: bool = False) -> None:
    """Raise ValueError, quoting nothing, if a password could be mistaken for a part of the host or the path. `many`: of hosts."""
    try:
        parts = urllib.parse.urlsplit(url)
        behind = parts.path + parts.fragment + ("" if "@" in parts.netloc else parts.query)
        place = parts.netloc.rpartition("@")[2]
        servers = place.split(",") if many else [place]
        ports = [urllib.parse.urlsplit(f"//{server}").port for server in servers]  # raises ValueError for one that cannot be
        is_plain = 0 not in ports and parts.netloc.count("@") <= 1 and "@" not in behind
    except ValueError:
        is_plain = False
    if not is_plain:
        raise ValueError("this is not a valid URL; check the port, and percent-encode special characters of a user or password")


# What a URL of Redis may say behind `?`, by scheme. Kombu hands anything else to the driver, which raises TypeError on connecting.
REDIS_PARAMETERS = {
    "redis": (),
    "rediss": ("ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_check_hostname"),
    "redis+socket": ("virtual_host",),
}


def require_redis(url: str) -> None:
    """Raise ValueError, quoting nothing, for a URL of Redis whose path is no number of a database or, of a socket, no file.

    Likewise for one with parameters that the driver does not know.
    """
    parts = urllib.parse.urlsplit(url)
    known = REDIS_PARAMETERS.get(parts.scheme, ())
    if parts.scheme in REDIS_PARAMETERS and not set(urllib.parse.parse_qs(parts.query, keep_blank_values=True)) <= set(known):
        raise ValueError(f"a {parts.scheme}:// URL has a parameter that is not known; allowed: {', '.join(known) or 'none'}")
    if parts.scheme == "redis+socket" and len(parts.path) <= 1:
        raise ValueError("a redis+socket:// URL needs the path of the socket, as redis+socket:///run/redis.sock")
    if parts.scheme in ("redis", "rediss") and not re.fullmatch(r"(/[0-9]*)?", parts.path):
        raise ValueError("the path of a redis:// URL is the number of a database, as redis://host:6379/0")
