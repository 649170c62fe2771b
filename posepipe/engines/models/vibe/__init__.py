"""VIBE (Kocabas, Athanasiou, Black, CVPR 2020): the published network, and the step of it that smooths fused skeletons."""
