"""Where a workload goes: array filters and weighers over all hosts, then a claim that cannot overcommit.

``needs`` says what a workload needs, ``fleet`` what the hosts have, ``filters`` and ``weighers`` judge all hosts at
once, and ``claims`` takes the place: a conditional update of the host's row in the transaction that assigns the
workload. So any number of schedulers may decide at once, by what each of them knows: the one whose update finds no
room any more takes the next host.
"""
