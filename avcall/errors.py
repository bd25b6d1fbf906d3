"""Every error that avcall raises on purpose, drawn as one tree.

    AvcallError
    ├── InputError               the user gave something that cannot be used
    │   ├── CameraError          no such camera or file, or a file without video
    │   ├── AudioDeviceError     no such microphone or speaker, or a file without audio
    │   ├── PhotoError           a --source photo with no face, two faces, or unreadable
    │   ├── NoFaceError          no face before the camera for too long
    │   ├── DisplayError         no display on this machine
    │   ├── RecordingError       the recording cannot be written (for example, a full disk)
    │   └── ConfigError          an unknown key or a value out of range
    ├── WeightsError             a weights file is missing, truncated, or of another config
    ├── BitstreamError           bytes from the peer that break the protocol (dropped and counted)
    │   ├── PacketError          a media packet
    │   ├── MotionError          a motion unit
    │   ├── KeyframeError        a keyframe, or a slice of one
    │   ├── AudioFormatError     an audio unit
    │   └── ControlError         a control message
    └── ConnectionFailedError    no connection to the peer
        ├── PeerUnreachableError nobody answers at the URL
        ├── UnauthorizedError    the token is wrong or missing
        ├── PeerBusyError        the receiver is already in a call
        ├── VersionError         the peer speaks another protocol version
        ├── SignalingError       the peer's signaling answer makes no sense
        ├── PeerLostError        the connection was there and went silent
        └── TransportClosedError this end closed the connection

The message of each is one line that names the thing and the remedy. The command line prints it and exits
with 2.
"""


class AvcallError(Exception):
    """Root of the tree; the command line turns any of these into one line and exit code 2."""


class InputError(AvcallError):
    """The user gave something that cannot be used."""


class CameraError(InputError):
    """No such camera or file, or a file without video."""


class AudioDeviceError(InputError):
    """No such microphone or speaker, or a file without audio."""


class PhotoError(InputError):
    """A source photo with no face, with two faces, or unreadable."""


class NoFaceError(InputError):
    """No face before the camera for too long."""


class DisplayError(InputError):
    """No display on this machine."""


class RecordingError(InputError):
    """The recording cannot be written."""


class ConfigError(InputError):
    """An unknown configuration key or a value out of range."""


class WeightsError(AvcallError):
    """A weights file is missing, truncated, or made for another configuration."""


class BitstreamError(AvcallError):
    """Bytes from the peer that break the protocol; the receiver drops and counts them."""


class PacketError(BitstreamError):
    """A media packet that breaks the protocol."""


class MotionError(BitstreamError):
    """A motion unit with a field out of range, non-finite or singular."""


class KeyframeError(BitstreamError):
    """A keyframe, or a slice of one, that is malformed or over its limits."""


class AudioFormatError(BitstreamError):
    """An audio unit that breaks the protocol or does not decode."""


class ControlError(BitstreamError):
    """A control message that does not fit its schema."""


class ConnectionFailedError(AvcallError):
    """No connection to the peer."""


class PeerUnreachableError(ConnectionFailedError):
    """Nobody answers at the peer's URL."""


class UnauthorizedError(ConnectionFailedError):
    """The peer refused the token."""


class PeerBusyError(ConnectionFailedError):
    """The peer is already in a call."""


class VersionError(ConnectionFailedError):
    """The peer speaks another protocol version."""


class SignalingError(ConnectionFailedError):
    """The signaling exchange broke down."""


class PeerLostError(ConnectionFailedError):
    """The connection was there and went silent."""


class TransportClosedError(ConnectionFailedError):
    """This end closed the connection."""
