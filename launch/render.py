"""Fills a YAML template with values in JSON, and prints it.

    render.py TEMPLATE NAME=TEXT NAME:=JSON ... [-- WORDS]

``${NAME}`` becomes the text as a JSON string, or the JSON itself; ``${ARGS}`` the list
of words after ``--``. JSON is valid YAML: no value can change the structure around it.
"""

import json
import string
import sys


def main(argv):
    template, *rest = argv
    end = rest.index("--") if "--" in rest else len(rest)
    values = {"ARGS": json.dumps(rest[end + 1 :])}
    for word in rest[:end]:
        name, _, text = word.partition("=")
        if name.endswith(":"):
            values[name[:-1]] = json.dumps(json.loads(text))
        else:
            values[name] = json.dumps(text)
    with open(template) as file:
        print(string.Template(file.read()).substitute(values), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
