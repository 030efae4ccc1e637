"""Copies one row of Cinder's table of volumes many times: python copy_volumes.py DATABASE ID PROJECT VOLUMES PROJECTS OWN."""

import sqlite3
import sys
import time

database, original, project = sys.argv[1:4]
volumes, projects, own = (int(number) for number in sys.argv[4:7])
connection = sqlite3.connect(database, timeout=60)
deadline = time.monotonic() + 60
while True:
    status = connection.execute("select status from volumes where id = ?", (original,)).fetchone()
    if status == ("available",) or time.monotonic() > deadline:
        break
    time.sleep(0.1)
columns = [row[1] for row in connection.execute("pragma table_info(volumes)")]
row = connection.execute(f"select {', '.join(columns)} from volumes where id = ?", (original,)).fetchone()
row = dict(zip(columns, row))


def copy(number):
    """A volume of the same shape as in cinder-api's records."""
    minutes = number // 60
    made = dict(row)
    made["id"] = f"{number:08x}-0000-4000-8000-000000000000"
    made["project_id"] = project if number < own else f"{1 + number % projects:032x}"
    made["display_name"] = f"volume number {number}"
    made["size"] = 10
    made["created_at"] = f"2023-{1 + minutes // 1440 // 28 % 12:02}-{1 + minutes // 1440 % 28:02} " \
        f"{minutes // 60 % 24:02}:{minutes % 60:02}:{number % 60:02}"
    return [made[column] for column in columns]


marks = ", ".join("?" for _ in columns)
insert = f"insert into volumes ({', '.join(columns)}) values ({marks})"
connection.executemany(insert, (copy(number) for number in range(volumes)))
connection.commit()
