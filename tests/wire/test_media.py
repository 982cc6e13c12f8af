"""Pictures, pages and sound whose size is visible are weighed by the providers' published rules."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget_guard.wire import CHAT_COMPLETIONS, CONVERSE, GENERATE_CONTENT, MESSAGES, RESPONSES, document, endpoint
from budget_guard.wire.document import pdf_pages
from budget_guard.wire.media import (
    MediaRules,
    decode,
    document_tokens,
    media_rules,
    picture_tokens,
    sound_tokens,
    split_data_url,
)
from budget_guard.wire.picture import picture_size
from budget_guard.wire.sound import wav_seconds


def png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"\x00" * 4


def jpeg(width: int, height: int, before: int = 0) -> bytes:
    comment = b"\xff\xfe" + struct.pack(">H", 60_002) + b"c" * 60_000
    frame = b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\x00" * 9
    return b"\xff\xd8\xff\xe0" + struct.pack(">H", 16) + b"JFIF" + b"\x00" * 10 + comment * before + b"\xff" + frame


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x00" * 10


def webp(width: int, height: int, kind: bytes = b"VP8X") -> bytes:
    if kind == b"VP8X":
        body = b"\x00" * 4 + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == b"VP8L":
        body = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + b"\x00" * 10
    else:
        body = b"\x00" * 3 + b"\x9d\x01\x2a" + struct.pack("<HH", width, height)
    return b"RIFF" + b"\x00" * 4 + b"WEBP" + kind + struct.pack("<I", len(body)) + body


def wav(seconds: float, per_second: int = 16_000) -> bytes:
    size = int(seconds * per_second)
    form = struct.pack("<HHIIHH", 1, 1, per_second // 2, per_second, 2, 16)
    head = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", len(head) + size) + head + b"\x00" * size


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "data",
    [
        png(1_024, 768),
        jpeg(1_024, 768),
        jpeg(1_024, 768, before=3),
        jpeg(1_024, 768).replace(b"\xff\xe0", b"\xff\x01\xff\xd0\xff\xd7\xff\xd8\xff\xe0"),
        jpeg(1_024, 768)[:-10],
        gif(1_024, 768),
        webp(1_024, 768),
        webp(1_024, 768, b"VP8L"),
        webp(1_024, 768, b"VP8 "),
    ],
    ids=[
        *("png", "jpeg", "jpeg with a long comment", "jpeg with markers alone", "jpeg that ends behind its size"),
        *("gif", "webp", "webp lossless", "webp lossy"),
    ],
)
def test_a_picture_tells_its_size(data: bytes) -> None:
    assert picture_size(data) == (1_024, 768)
    rules = media_rules("openai", "gpt-4o")
    assert picture_tokens(rules, b64(data + b"\x01" * 50_000), "high") == 85 + 170 * 4


@pytest.mark.parametrize(
    ("data", "enough"),
    [
        (png(1_024, 768), 24),
        (jpeg(1_024, 768), 30),
        (jpeg(1_024, 768).replace(b"\xff\xe0", b"\xff\xff\xff\xe0"), 32),
        (gif(1_024, 768), 10),
        (webp(1_024, 768), 30),
        (webp(1_024, 768, b"VP8L"), 25),
        (webp(1_024, 768, b"VP8 "), 30),
    ],
    ids=["png", "jpeg", "jpeg with fill bytes", "gif", "webp", "webp lossless", "webp lossy"],
)
def test_a_size_is_told_as_soon_as_its_bytes_are_there_and_not_before(data: bytes, enough: int) -> None:
    told = [picture_size(data[:length]) for length in range(len(data) + 1)]
    assert told == [None] * enough + [(1_024, 768)] * (len(data) + 1 - enough)


@pytest.mark.parametrize("sides", [(1, 1), (1, 65_535), (65_535, 1)])
def test_the_smallest_and_the_longest_side_of_a_picture_are_told(sides: tuple[int, int]) -> None:
    assert picture_size(png(*sides)) == picture_size(gif(*sides)) == picture_size(jpeg(*sides)) == sides
    for beyond in ((0, sides[1]), (sides[0], 0), (65_536, sides[1]), (sides[0], 65_536)):
        assert picture_size(png(*beyond)) is None


NO_FRAMES = (0xC4, 0xC8, 0xCC)
"""Huffman tables, an extension, how it is coded: their markers are among those of frames. ITU T.81, table B.1."""


@pytest.mark.parametrize("marker", range(0xC0, 0xD0))
def test_a_frame_of_any_kind_tells_the_size_of_a_jpeg_and_a_table_none(marker: int) -> None:
    segment = bytes((0xFF, marker)) + struct.pack(">HBHHB", 8, 8, 9, 11, 3)
    assert picture_size(b"\xff\xd8" + segment + jpeg(5, 7)[2:]) == ((5, 7) if marker in NO_FRAMES else (11, 9))


@pytest.mark.parametrize(
    "data", [b"", b"BM" + b"\x00" * 60, png(0, 5), png(70_000, 5), b"\xff\xd8\xff\xd9", b"\xff\xd8\x00"]
)
def test_what_is_no_picture_tells_nothing(data: bytes) -> None:
    assert picture_size(data) is None


@given(st.binary(max_size=200))
def test_no_bytes_crash_a_reader(data: bytes) -> None:
    for start in (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF0000WEBPVP8X",
        b"%PDF-1.7 /ObjStm /FlateDecode stream\n",
        b"GIF89a",
    ):
        picture_size(start + data)
        pdf_pages(start + data)
        wav_seconds(b"RIFF0000WAVE" + data, 10)
        decode(b64(start + data)[:-1])


@pytest.mark.parametrize(
    ("model", "detail", "size", "tokens"),
    [
        # the examples of developers.openai.com/api/docs/guides/images-vision
        ("gpt-4o", "high", (1_024, 1_024), 765),
        ("gpt-4o", "high", (2_048, 4_096), 1_105),
        ("gpt-4o", "low", (4_096, 8_192), 85),
        ("gpt-4o-mini", "high", (1_024, 1_024), 2_833 + 4 * 5_667),
        ("gpt-5", "high", (1_024, 1_024), 70 + 4 * 140),
        ("o3", "auto", (1_024, 1_024), 75 + 4 * 150),
        ("gpt-4.1-mini", "auto", (1_024, 1_024), math.ceil(1_024 * 1.62)),
        ("gpt-4.1-nano", "high", (4_000, 4_000), math.ceil(1_536 * 2.46)),
        ("o4-mini-2025-04-16", "high", (1_024, 1_024), math.ceil(1_024 * 1.72)),
        ("gpt-5.4", "high", (640, 480), 360),
        ("gpt-5.4", "original", (6_000, 6_000), 12_000),
        ("gpt-5.6-sol", "auto", (3_200, 960), 3_600),
        ("gpt-6-sol", "high", (10_000, 10_000), 3_000),
        ("gpt-6-sol", "low", (640, 480), 308),
        # platform.claude.com/docs/en/build-with-claude/vision: 28 px squares, 1,568 or 4,784 at most
        ("claude-sonnet-4-6", "auto", (1_000, 1_000), 1_334),
        ("claude-sonnet-4-5-20250929", "auto", (8_000, 8_000), 1_568),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "auto", (8_000, 8_000), 1_568),
        ("claude-opus-4-7", "auto", (8_000, 8_000), 4_784),
        ("claude-fable-5", "auto", (1_932, 1_932), 4_784),
        ("claude-3-5-sonnet-20241022", "auto", (200, 200), 64),
        # ai.google.dev/gemini-api/docs/tokens and /media-resolution
        ("gemini-2.5-flash", "auto", (384, 384), 258),
        ("gemini-2.5-flash", "auto", (960, 540), 258 * 6),
        ("gemini-3.1-pro", "auto", (960, 540), 1_120),
        ("gemini-3.1-pro", "MEDIA_RESOLUTION_LOW", (960, 540), 280),
        ("gemini-3.1-pro", "media_resolution_ultra_high", (960, 540), 2_240),
        ("gemini-3.1-pro", "brand_new", (960, 540), 2_240),
    ],
)
def test_rules_are_those_that_providers_publish(model: str, detail: str, size: tuple[int, int], tokens: int) -> None:
    rules = media_rules(None, model)

    assert rules.picture is not None
    assert rules.picture(*size, detail) == tokens


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from(["low", "high", "original", "auto", "x"]))
def test_a_deployment_of_one_s_own_name_is_weighed_by_the_dearest_rule(width: int, height: int, detail: str) -> None:
    unknown = media_rules("azure", "prod-chat").picture
    assert unknown is not None

    for model in ("gpt-4o", "gpt-4o-mini", "gpt-5", "gpt-5.2", "gpt-6-sol", "gpt-5.4-nano", "o4-mini", "gpt-4.1-nano"):
        rule = media_rules("openai", model).picture
        assert rule is not None and 0 < rule(width, height, detail) <= unknown(width, height, detail)


def test_a_model_without_published_rules_has_no_bound() -> None:
    for provider, model in (
        (None, "my-llava"),
        ("mistral", "pixtral-large"),
        ("x-ai", "grok-4"),
        ("openrouter", "qwen/qwen-vl"),
    ):
        assert media_rules(provider, model) == MediaRules("unknown")


PAGES = b"%PDF-1.4\n1 0 obj << /Type /Pages /Kids [] /Count 3 >> endobj\n" + b"<< /Type /Page >>\n" * 3


def inside_pdf(pages: int) -> bytes:
    return b"<< /Type /Pages /Count %d >>" % pages + b"<< /Type/Page /Parent 1 0 R >>" * pages


def compressed_pdf(pages: int) -> bytes:
    inner = inside_pdf(pages)
    return (
        b"%PDF-1.7\n5 0 obj << /Type /ObjStm /Filter /FlateDecode >>\nstream\n" + zlib.compress(inner) + b"\nendstream"
    )


@pytest.mark.parametrize(
    ("data", "pages"),
    [
        (PAGES, 3),
        (PAGES.replace(b"/Count 3", b"/Count 9"), 9),
        (compressed_pdf(12), 12),
        (b"%PDF-1.4 nothing", None),
        (PAGES + b"/Encrypt 5 0 R", None),
        (compressed_pdf(2).replace(b"/FlateDecode", b"/LZWDecode"), None),
        (b"%PDF-1.7 1 0 obj << /Type /ObjStm /Filter /FlateDecode >>\nstream\nno zlib", None),
        (b"GIF89a", None),
        (compressed_pdf(2) + compressed_pdf(5), 7),
        (compressed_pdf(2) + b"6 0 obj << /Length 3 >>\nstream\nabc\nendstream" + compressed_pdf(5), 7),
        (compressed_pdf(2).replace(b"stream\n", b"stream\r\n", 1), 2),
    ],
)
def test_a_pdf_tells_its_pages(data: bytes, pages: int | None) -> None:
    assert pdf_pages(data) == pages


def test_pages_are_counted_to_the_end_of_a_file_however_long_it_is() -> None:
    rules = media_rules("anthropic", "claude-sonnet-4-6")
    assert rules.page is not None
    long = PAGES + b"%" * 40_000 + b"\n<< /Type /Page >>\n" * 4
    assert document_tokens(rules, b64(long)) == 7 * rules.page


def test_a_page_that_inflates_without_end_is_not_read() -> None:
    bomb = b"%PDF-1.7\n5 0 obj << /Type /ObjStm /Filter /FlateDecode >>\nstream\n" + zlib.compress(b"\x00" * 70_000_000)

    assert pdf_pages(bomb) is None


@pytest.mark.parametrize(("room", "pages"), [(-1, None), (0, None), (1, 7)])
def test_all_streams_of_a_file_together_inflate_to_so_much_at_most(
    monkeypatch: pytest.MonkeyPatch, room: int, pages: int | None
) -> None:
    monkeypatch.setattr(document, "_MOST_INFLATED", len(inside_pdf(2) + inside_pdf(5)) + room)
    assert pdf_pages(compressed_pdf(2) + compressed_pdf(5)) == pages


def test_a_sound_tells_its_length() -> None:
    data = wav(3)

    assert wav_seconds(data, len(data)) == pytest.approx(3, abs=0.01)
    assert sound_tokens(media_rules("google", "gemini-2.5-flash"), b64(data)) in (4 * 32, 5 * 32)
    assert sound_tokens(media_rules("openai", "gpt-audio"), b64(data)) in (40, 50)
    assert sound_tokens(media_rules(None, "gpt-4o-audio-preview"), b64(data)) in (40, 50)
    assert sound_tokens(media_rules("anthropic", "claude-sonnet-4-6"), b64(data)) is None
    assert sound_tokens(media_rules("google", "gemini-2.5-flash"), b64(b"ID3" + data)) is None
    told = b"LIST" + struct.pack("<I", 300) + b"\x00" * 300  # what comes before the format is passed over
    assert wav_seconds(data[:12] + told + data[12:], len(data)) == pytest.approx(3, abs=0.01)
    assert wav_seconds(data[:12] + b"LIST" + struct.pack("<I", 3) + b"\x00" * 4 + data[12:], len(data)) is not None
    assert wav_seconds(b"RIFF0000WAVEfmt " + struct.pack("<I", 16) + b"\x00" * 16, 100) is None


def test_a_sound_of_months_has_no_bound() -> None:
    rules = media_rules("google", "gemini-2.5-flash")
    head = b64(b"RIFF0000WAVEfmt " + struct.pack("<IHHII", 16, 1, 1, 1, 1))
    just = head + "A" * (13_333_330 - len(head))  # ten million bytes, at one a second
    assert sound_tokens(rules, just) == 10**7 * 32 + 32
    assert sound_tokens(rules, just + "AA") is None


@pytest.mark.parametrize(
    "before", [b"", b"fact" + struct.pack("<I", 3) + b"odd\x00", b"LIST" + struct.pack("<I", 4) + b"even"]
)
def test_the_length_of_a_sound_is_told_as_soon_as_its_rate_is_there_and_not_before(before: bytes) -> None:
    data = wav(0.01)
    data = data[:12] + before + data[12:]
    enough = 32 + len(before)
    told = [wav_seconds(data[:length], 32_000) for length in range(enough + 9)]
    assert told == [None] * enough + [2.0] * 9


@pytest.mark.parametrize("odd", [b"\xff\xef\xbe", b"\xfb\xef\xbe", b"\xfb\xff\xbf"])
def test_base64_is_read_in_either_alphabet_with_its_padding_or_without(odd: bytes) -> None:
    for data in (odd, odd + b"a", odd + b"ab", b"a" + odd):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(data).decode()
            for given_text in (text, text.rstrip("=")):
                assert decode(given_text) == decode(given_text, whole=True) == data


def test_only_the_first_bytes_of_a_file_are_read_unless_all_are_asked_for() -> None:
    text = b64(b"x" * 100_000)
    assert (len(decode(text)), len(decode(text, whole=True))) == (32_766, 100_000)


@pytest.mark.parametrize("url", ["data:image/png;base64,AA", "DATA:image/png;charset=x;base64,AA"])
def test_a_data_url_carries_its_picture(url: str) -> None:
    assert split_data_url(url) == ("image/png", "AA")


@pytest.mark.parametrize("url", ["https://x/data:image/png;base64,AA", "data:image/png,AA", "data:image/png;base64"])
def test_other_addresses_do_not(url: str) -> None:
    assert split_data_url(url) is None


PICTURE = b64(png(1_024, 1_024) + b"\x01" * 500_000)
DOCUMENT = b64(PAGES)
OPENAI = endpoint("POST", "api.openai.com", "/v1/responses")


def chat(part: Any, model: str) -> Any:
    return CHAT_COMPLETIONS.read_request(
        OPENAI, {"model": model, "messages": [{"role": "user", "content": [part]}]}, {}
    )


def test_a_picture_is_weighed_by_its_rule_and_not_as_text() -> None:
    url = f"data:image/png;base64,{PICTURE}"
    for detail, tokens in (("high", 765), ("low", 85)):
        found = chat({"type": "image_url", "image_url": {"url": url, "detail": detail}}, "gpt-4o")
        assert not found.prompt.unweighed
        assert tokens <= found.prompt.text <= tokens + 100
        assert found.needs == {"vision"}
        items = [{"role": "user", "content": [{"type": "input_image", "image_url": url, "detail": detail}]}]
        again = RESPONSES.read_request(OPENAI, {"model": "gpt-4o", "input": items}, {})
        assert tokens <= again.prompt.text <= tokens + 100 and again.needs == {"vision"}


def test_a_picture_for_another_model_is_weighed_by_the_other_s_rule() -> None:
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": [part]}]}

    assert CHAT_COMPLETIONS.read_request(OPENAI, body, {}).prompt.text < 1_000
    downgraded = CHAT_COMPLETIONS.read_request(OPENAI, body, {"gpt-4o": "gpt-4o-mini"})
    assert downgraded.prompt.text > 25_000
    assert downgraded.model == "gpt-4o-mini"


def test_claude_weighs_pictures_and_pages() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}
    pages = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": DOCUMENT}}
    at = endpoint("POST", "api.anthropic.com", "/v1/messages")
    blocks = [image, pages, {"type": "tool_result", "content": [image]}]
    found = MESSAGES.read_request(
        at, {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": blocks}]}, {}
    )

    tokens = 2 * 1_399 + 3 * (1_568 + 3_000)
    assert not found.prompt.unweighed
    assert tokens <= found.prompt.text <= tokens + 300
    assert found.needs == {"vision"}


def test_gemini_weighs_pictures_and_pages_and_knows_how_long_sound_is() -> None:
    at = endpoint("POST", "generativelanguage.googleapis.com", "/v1beta/models/gemini-3.1-pro:generateContent")
    parts = [
        {"inlineData": {"mimeType": "image/png", "data": PICTURE}},
        {"inlineData": {"mimeType": "application/pdf", "data": DOCUMENT}},
    ]
    found = GENERATE_CONTENT.read_request(at, {"contents": [{"parts": parts}]}, {})

    tokens = 1_120 + 3 * 2_240
    assert not found.prompt.unweighed and found.sound_tokens == 0
    assert tokens <= found.prompt.text <= tokens + 200
    sound = {"inlineData": {"mimeType": "audio/wav", "data": b64(wav(2))}}
    heard = GENERATE_CONTENT.read_request(at, {"contents": [{"parts": [sound, sound]}]}, {})
    assert heard.sound_tokens in (2 * 3 * 32, 2 * 4 * 32)
    assert list(heard.prompt.unweighed.values()) == ["audio"], "sound has a price of its own"
    assert heard.needs == {"audio"}
    unknown = GENERATE_CONTENT.read_request(
        at, {"contents": [{"parts": [{**sound, "inlineData": {"mimeType": "audio/mp3"}}]}]}, {}
    )
    assert unknown.sound_tokens is None


def test_bedrock_weighs_the_pictures_of_claude() -> None:
    at = endpoint("POST", "", "/model/anthropic.claude-sonnet-4-5-20250929-v1:0/converse")
    image = {"image": {"format": "png", "source": {"bytes": PICTURE}}}
    found = CONVERSE.read_request(at, {"messages": [{"role": "user", "content": [image]}]}, {})

    assert not found.prompt.unweighed and 1_399 <= found.prompt.text <= 1_500


def test_equal_pictures_are_one_message_and_others_another() -> None:
    def key(data: bytes) -> int:
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(data)}"}}
        found: int = chat(part, "gpt-4o").prompt.parts[0][0]
        return found

    assert key(png(9, 9) + b"a") == key(png(9, 9) + b"a") != key(png(9, 9) + b"b")


@pytest.mark.parametrize(("size", "known"), [((1, 1), True), ((0, 5), False), ((5, 0), False)])
def test_a_picture_is_at_least_one_pixel_wide_and_high(size: tuple[int, int], known: bool) -> None:
    assert picture_size(png(*size)) == (size if known else None)
