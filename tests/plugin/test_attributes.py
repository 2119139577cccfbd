"""An attribute is found wherever an object may keep it, and what no object of a class has costs no question."""

from functools import cached_property

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, ConfigDict, PrivateAttr

from rlhi_plugin.attributes import attributes_of


class Plain:
    def __init__(self):
        self.adapter_id = "own"


class Fields(BaseModel):
    adapter_id: str = "field"


class Bare(BaseModel):
    other: int = 1


class Computed(BaseModel):
    @property
    def adapter_id(self):
        return "property"


class Cached(BaseModel):
    @cached_property
    def adapter_id(self):
        return "cached"


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Answering(BaseModel):
    def __getattr__(self, name):
        return f"answers {name}"


class Private(BaseModel):
    _secret: str = PrivateAttr(default="private")


def set_past_pydantic():
    bare = Bare()
    object.__setattr__(bare, "adapter_id", "set")
    return bare


@pytest.mark.parametrize(
    ("thing", "found"),
    [
        (Plain(), "own"), (object(), None), (Fields(), "field"), (Bare(), None), (Computed(), "property"),
        (Cached(), "cached"), (Open(adapter_id="extra"), "extra"), (Open(), None), (Answering(), "answers adapter_id"),
        (set_past_pydantic(), "set"), (RunnableLambda(str).bind(), None), (None, None),
    ],
)  # fmt: skip
def test_where_an_attribute_may_be(thing, found):
    assert attributes_of(thing, ("adapter_id", "nothing_of_that_name"))[0] == found
    assert attributes_of(thing, ("adapter_id",)) == [found]
    assert attributes_of(thing, ("adapter_id",)) == [found], "asked again"


def test_private_ones_and_fields_of_messages():
    assert attributes_of(Private(), ("_secret", "other")) == ["private", None]
    assert attributes_of(HumanMessage("hi"), ("tool_calls", "id")) == [None, None]
    assert attributes_of(AIMessage("hi", id="m"), ("tool_calls", "id")) == [[], "m"]
