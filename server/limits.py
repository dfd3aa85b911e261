"""Who may do how much: counters in the database, so that they are right across processes, and rows beside what they limit.

The strategy is the library's; the storage is ours, for it has none that shares our transactions.
"""
