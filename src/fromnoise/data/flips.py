"""Which pictures mean the same in a mirror: nothing with letters, digits, hands, hands of clocks or arrows."""

from __future__ import annotations

from fromnoise.data.concepts import Concept

__all__ = ["may_flip"]

_SUBGROUPS = frozenset(
    "face-hand time musical-instrument music book-paper money place-map mail computer phone award-medal "
    "emotion sound game writing office light-video face-glasses".split()
)

# Concepts of other subgroups, by the words of their labels.
_WORDS = frozenset(
    "clock o’clock watch stopwatch timer waxing waning quarter crescent globe hospital bank hotel atm ambulance taxi "
    "police bus stop barber japanese tokyo convenience love school department post billiards pool calendar "
    "speedometer thermometer ruler abacus meridian compass oncoming steaming stethoscope x-ray level arrow arrows "
    "letter letters top soon back on end left right zzz sleeping sign ticket tickets newspaper label "
    "construction fuel minibus trolleybus racing jersey shirt american football card keyboard syringe "
    "petri radio tv television bowling eight dna milk sake salt canned film camera fire-engine engine".split()
)


def may_flip(concept: Concept) -> bool:
    """True where a mirrored drawing of the concept is as good a drawing of it."""
    return concept.subgroup not in _SUBGROUPS and _WORDS.isdisjoint(concept.label.lower().replace("-", " ").split())
