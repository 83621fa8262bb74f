"""Which addresses may be called: every spelling that ever got past somebody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_agent.domain import addresses
from loremesh_agent.domain.addresses import Forbidden, exemptions

pytestmark = pytest.mark.unit

NONE = exemptions([])


def allowed(url: str, *, exempt: addresses.Exemptions = NONE) -> str:
    place = addresses.place(url)
    return str(addresses.check(place.host, place.port, exempt=exempt) or place.host)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0x7F.0.0.1",
        "0177.0.0.1",
        "0x7f.1",
        "127.0x0.0.01",
        "0",
        "0.0.0.0",
        "０１７７.0.0.1",
        "127。0。0。1",
        "１２７.０.０.１",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "3232235777",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "192.88.99.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:8.8.8.8]",
        "[::127.0.0.1]",
        "[0:0:0:0:0:ffff:169.254.169.254]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::169.254.169.254]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2002:a9fe:a9fe::]",
        "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
        "[2001:10::1]",
        "[2001:db8::1]",
        "[3fff::1]",
        "[100::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[5f00::1]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "sub.localhost",
        "localhost.localdomain",
        "printer.local",
        "metadata.google.internal",
        "metadata.google.internal.",
        "postgres",
        "agent.default.svc.cluster.local",
        "router.home.arpa",
        "intranet",
    ],
)
def test_what_is_not_public_is_forbidden_however_it_is_spelt(host):
    with pytest.raises(Forbidden):
        allowed(f"http://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://127.0.0.1:6379/_",
        "javascript:alert(1)",
        "//example.com/",
        "example.com",
        "http:///path",
        "http://",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://example.com@127.0.0.1/",
        "http://127.0.0.1#@example.com/",
        "http://127.0.0.1\\@example.com/",
        "http://example.com\\.evil/",
        "http://example.com /",
        "http://exam\tple.com/",
        "http://example.com/\r\nHost: internal",
        "http://[fe80::1%25eth0]/",
        "http://exam%70le.com/",
        "http://example.com:22/",
        "http://example.com:8080/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:https/",
        "http://8.8.8.8:6379/",
        "http://1.2.3.4.5/",
        "http://1.2.3.256/",
        "http://4294967296/",
        "http://0xfffffffff/",
        "http://08.8.8.8/",
        "http://example.1/",
        "http://[::1/",
        "http://[zz]/",
        "http://-a.com/",
        "http://a..b/",
        "http://exa$mple.com/",
        "http://" + "a" * 64 + ".com/",
        "http://" + "a." * 130 + "com/",
        "http://example.com/" + "a" * 2000,
    ],
)
def test_what_is_no_plain_address_is_forbidden(url):
    with pytest.raises(Forbidden):
        allowed(url)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://example.com/", "example.com"),
        ("HTTPS://EXAMPLE.com./a?b=c#d", "example.com"),
        ("http://example.com:443/", "example.com"),
        ("http://8.8.8.8/", "8.8.8.8"),
        ("http://134744072/", "8.8.8.8"),
        ("http://0x8.8.8.8/", "8.8.8.8"),
        ("http://[2606:4700::1111]/", "2606:4700::1111"),
        ("http://bücher.example.org/", "xn--bcher-kva.example.org"),
        ("http://localhost.example.org/", "localhost.example.org"),
        ("http://a_b.example.org/", "a_b.example.org"),
    ],
)
def test_what_is_public_may_be_called(url, host):
    assert allowed(url) == host


def test_a_place_is_what_is_sent():
    place = addresses.place("HTTP://Example.com:443/a b/ü?q=ä#fragment".replace(" ", "%20"))
    assert (place.scheme, place.host, place.port) == ("http", "example.com", 443)
    assert place.target == "/a%20b/%C3%BC?q=%C3%A4"
    assert place.url == "http://example.com:443/a%20b/%C3%BC?q=%C3%A4"
    assert addresses.place("https://[2606:4700::1111]").url == "https://[2606:4700::1111]/"
    assert addresses.place("https://[2606:4700::1111]:80?x").url == "https://[2606:4700::1111]:80/?x"


def test_an_operator_may_exempt_hosts_and_nothing_beside_them():
    exempt = exemptions(["127.0.0.1:8123", " Docs.Intranet ", "[::1]:99", ""])
    assert allowed("http://127.0.0.1:8123/", exempt=exempt) == "127.0.0.1"
    assert allowed("https://docs.intranet/", exempt=exempt) == "docs.intranet"
    assert allowed("http://docs.intranet./", exempt=exempt) == "docs.intranet"
    assert allowed("http://[::1]:99/", exempt=exempt) == "::1"
    for url in [
        "http://127.0.0.1:8124/",
        "http://127.0.0.1/",
        "http://127.0.0.2:8123/",
        "http://docs.intranet:22/",
        "http://a.docs.intranet/",
        "http://[::1]/",
    ]:
        with pytest.raises(Forbidden):
            allowed(url, exempt=exempt)


@pytest.mark.parametrize(
    "found",
    [
        [],
        ["127.0.0.1"],
        ["8.8.8.8", "10.0.0.1"],
        ["8.8.8.8", "::1"],
        ["::ffff:8.8.8.8"],
        ["fe80::1%eth0"],
        ["169.254.169.254"],
    ],
)
def test_a_name_with_one_private_address_is_forbidden(found):
    with pytest.raises(Forbidden):
        addresses.check_resolved("example.com", 443, found, exempt=NONE)


def test_a_name_with_public_addresses_is_allowed_and_an_exempt_one_with_any():
    found = addresses.check_resolved("example.com", 443, ["8.8.8.8", "2606:4700::1111", "8.8.8.8"], exempt=NONE)
    assert [str(each) for each in found] == ["8.8.8.8", "2606:4700::1111"]
    exempt = exemptions(["example.com"])
    assert addresses.check_resolved("example.com", 443, ["127.0.0.1"], exempt=exempt)
    with pytest.raises(Forbidden):
        addresses.check_resolved("example.com", 443, [], exempt=exempt)


@given(st.ip_addresses(v=4))
def test_every_spelling_of_an_address_is_the_same_address(address):
    whole = int(address)
    a, b, c, d = address.packed
    spellings = [
        str(address),
        str(whole),
        hex(whole),
        f"0{whole:o}",
        f"{a}.{whole & 0xFFFFFF}",
        f"{a}.{b}.{whole & 0xFFFF}",
        f"0{a:o}.{b:#x}.{c}.{d}",
        f"{address}.",
    ]
    for spelling in spellings:
        assert addresses.literal(spelling) == address


@given(st.ip_addresses())
def test_nothing_private_is_called_public(address):
    # What the standard library calls private is private; we call more so, such as 6to4.
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        assert not addresses.is_public(address)


@given(st.text(max_size=80))
def test_any_text_is_a_place_or_forbidden(text):
    for url in (text, f"http://{text}", f"https://{text}/x"):
        try:
            place = addresses.place(url)
            addresses.check(place.host, place.port, exempt=NONE)
        except Forbidden:
            continue
        assert place.host.isascii()
        assert place.target.isascii()
