"""TURN credentials, against a value computed with openssl."""

from signaling.turn import TurnCredentials, turn_credentials


def test_credentials_expire_and_are_signed() -> None:
    # printf %s 1700003600:avcall | openssl dgst -sha1 -hmac north -binary | base64
    assert turn_credentials("north", 1_700_000_000.9, 3600) == TurnCredentials(
        "1700003600:avcall", "jV+IEDBjvsQGK0io3zhdQX29EtE="
    )
