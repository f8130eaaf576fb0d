from tests.hub.standing_in import hub, logged_in

__all__ = ["hub", "logged_in"]
