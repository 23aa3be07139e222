"""Ads-Parallelity: does the slogan of an ad say what its picture says?"""
