"""Comparing arms over paired seeds: ``qsgd compare``.

==================  ==============================================================================
:mod:`.arms`        what is compared: ``adamw``, ``sine@0.5``, ``uniform@0.5:normalized``
:mod:`.presets`     the paper's arms and their controls
:mod:`.plan`        everything that is fixed before the first run, in one file
:mod:`.planning`    from what was asked to that plan
:mod:`.runs`        one run of one arm and seed, started, taken up or found finished
:mod:`.witness`     what each run started from and saw first, to show that seeds are paired
:mod:`.money`       what a comparison on a paid backend may spend, shared out among its runs
:mod:`.executors`   where runs run: processes here (:mod:`.pool`), or Ray (:mod:`.on_ray`)
:mod:`.drive`       from a plan to a folder of finished runs
:mod:`.table`       from that folder to what ``--json`` prints; in words, :mod:`.text`
:mod:`.cli`         the command, with its screen (:mod:`.progress`)
==================  ==============================================================================
"""
