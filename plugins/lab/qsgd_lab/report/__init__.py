"""Pages about runs and comparisons: ``qsgd report FOLDER --html`` and ``--markdown``.

====================  ==============================================================================
:mod:`.document`      what a page is made of: sections, tables, figures; plain records
:mod:`.page`          a document as one HTML file that loads nothing
:mod:`.twin`          the same document as Markdown
:mod:`.comparison`    from a comparison's folder to a document
:mod:`.run`           from a run's folder to a document
:mod:`.backstage`     what a comparison's runs say of times, machines and hardware
:mod:`.claims`        the paper's claims beside what was found
:mod:`.verdicts`      all arms' conclusions in one sentence
:mod:`.tables`        the tables of a comparison
:mod:`.forest`        the forest plot of a comparison
:mod:`.lines`         figures over the epochs; how arms look is in :mod:`.palette`
:mod:`.run_figures`   the figures of a run
:mod:`.hardware`      what was measured and paid
:mod:`.commands`      the line that rebuilds a result
:mod:`.render`        the hook's factories
====================  ==============================================================================

The same folder gives the same bytes: nothing here reads a clock.
"""
