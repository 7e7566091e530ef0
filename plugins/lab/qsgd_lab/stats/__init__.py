"""Statistics of a comparison: paired seeds, fixed in advance, every test from scipy.

========================  ==========================================================================
:mod:`.pairs`             two arms aligned by seed; what diverged or is missing is counted
:mod:`.paired`            primary: paired t, its 95 % interval, Holm over the arms
:mod:`.secondary`         beside it, so labelled: sign flip, Wilcoxon, BCa bootstrap
:mod:`.power`             minimum detectable effect and seeds needed, by the non-central t
:mod:`.censored`          epochs to a target that not every run reaches
:mod:`.claims`            what the paper claims, held against an interval
:mod:`.conclusions`       one sentence an arm: what can and what cannot be concluded
========================  ==========================================================================

Pure: numbers in, frozen dataclasses out. ``dataclasses.asdict`` of any of them is JSON: it holds no
NaN and no infinity; what could not be computed is None. Importing any of these modules but
:mod:`.pairs` and :mod:`.claims` imports scipy, so listings must not.
"""
