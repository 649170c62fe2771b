"""BlazePose: the transcribed networks of MediaPipe Pose, their decoders, and top-down inference with them."""
