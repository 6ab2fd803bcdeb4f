"""Starting runs elsewhere: settings, accelerators, the check before anything is created, and the launchers.

The commands and manifests themselves are the small files in ``launch/``.
"""
