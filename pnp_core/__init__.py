"""PnP-OVSS, the method: open-vocabulary segmentation from an off-the-shelf vision-language model.

Luo, Khandelwal, Sigal, Li, "Emergent Open-Vocabulary Semantic Segmentation from Off-the-shelf
Vision-Language Models", CVPR 2024 (arXiv 2311.17095). This package never imports Prefect.
"""
