"""From packets to the picture and the loudspeaker."""
