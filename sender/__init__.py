"""From the camera and the microphone to packets."""
