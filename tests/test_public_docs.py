"""Docstrings have every parameter of the functions and methods that users call, and no other."""

import inspect
import re

import pytest

import resolvi_sd as rsd

FUNCTIONS = [
    (f"{module.__name__}.{name}", getattr(module, name))
    for module in (rsd.tl, rsd.pl, rsd.gr, rsd.io, rsd.metrics, rsd.datasets)
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
]
METHODS = [
    (f"ResolVI.{name}", getattr(rsd.ResolVI, name))
    for name, _ in inspect.getmembers(rsd.ResolVI, callable)
    if not name.startswith("_")
]


def documented(text):
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-+$|\Z)", text, re.DOTALL | re.MULTILINE)
    lines = section[1].splitlines() if section else []
    return [name for line in lines if line and not line.startswith(" ") for name in line.split(", ")]


@pytest.mark.parametrize(("name", "function"), FUNCTIONS + METHODS)
def test_every_parameter_is_documented(name, function):
    parameters = [parameter for parameter in inspect.signature(function).parameters if parameter != "self"]
    assert sorted(documented(inspect.getdoc(function))) == sorted(parameters)


@pytest.mark.parametrize(("name", "function"), FUNCTIONS + METHODS)
def test_what_is_returned_is_documented(name, function):
    returned = inspect.signature(function).return_annotation
    assert returned in (None, "None") or "Returns\n-------\n" in inspect.getdoc(function)
