"""RTMPose and RTMDet: their cards."""
