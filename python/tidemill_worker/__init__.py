"""Tidemill's Python side: a fork server, and the workers that it forks. The server writes these files and starts them; nothing here is
installed, and nothing but the standard library is needed (numpy, pandas and pyarrow are used where they are)."""
