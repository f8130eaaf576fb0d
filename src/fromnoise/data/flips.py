"""Which pictures mean the same in a mirror: nothing with letters, digits, hands, hands of clocks or arrows."""

from __future__ import annotations

from fromnoise.data.concepts import Concept

__all__ = ["may_flip"]

# Unicode subgroups whose drawings show letters, digits, notes, hands or one-sided gear.
_UNFIT_SUBGROUPS = """
face-hand face-glasses time musical-instrument music sound book-paper writing money place-map mail computer phone
light-video award-medal emotion game office
"""

# Words in the labels of such concepts elsewhere: signs on buildings and cars, dials, moons, one-sided things.
_UNFIT_WORDS = """
clock o’clock watch stopwatch timer thermometer compass scale waxing waning quarter crescent globe hospital bank hotel
school post store convenience police ambulance taxi bus trolleybus minibus engine racing stop barber pump elevator
ticket tickets card sign label shirt jersey football ball arrow zzz sleeping left right stethoscope x dna bowling
symbols canned milk salt sake letter envelope money saluting station metro rail truck wheelchair headstone badge
thinking shushing yawning monocle bullseye motorway statue kimono sari
"""

_SUBGROUPS = frozenset(_UNFIT_SUBGROUPS.split())
_WORDS = frozenset(_UNFIT_WORDS.split())


def may_flip(concept: Concept) -> bool:
    """True where a mirrored drawing of the concept is as good a drawing of it."""
    return concept.subgroup not in _SUBGROUPS and _WORDS.isdisjoint(concept.label.lower().replace("-", " ").split())
