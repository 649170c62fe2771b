"""OpenPose: every person of a picture at once, as part heatmaps and part affinity fields (Cao et al. 2017, 2019).

The networks' layout is restated from their published descriptions; no code and no weights of the original are here.
"""
