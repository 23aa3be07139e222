"""Pretrained encoders that turn raw data into elements, once, before any training."""
