"""Examples of docstrings as code on the site.  in: what mkdocstrings has read   out: the same, with fences"""

import re

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Put each example, from `>>>` to the next empty line, into a block of code; Markdown would read quotations."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Change the docstring of a module, class, function or attribute once it has been read."""
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = EXAMPLE.sub(fenced, obj.docstring.value)


def fenced(example: re.Match) -> str:
    """The example between fences, at its own indentation."""
    return f"{example[1]}```pycon\n{example[0]}\n{example[1]}```"
