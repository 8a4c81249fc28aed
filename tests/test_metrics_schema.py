"""What measurements ask of a schema: groups, and labels within their range."""

import json

import numpy as np
import pytest

from crl_tf.schema import Attribute, AttributeSchema

YES_NO = ("no", "yes")


def test_groups_in_order_of_appearance_survive_the_config_and_are_not_in_it_without():
    schema = AttributeSchema(
        (
            Attribute("a", YES_NO, "shape"),
            Attribute("b", YES_NO),
            Attribute("c", YES_NO, "fabric"),
            Attribute("d", YES_NO, "shape"),
        )
    )
    assert list(schema.groups.items()) == [("shape", (0, 3)), ("fabric", (2,))]
    config = json.loads(json.dumps(schema.to_config()))
    assert config[:2] == [{"name": "a", "classes": ["no", "yes"], "group": "shape"}, {"name": "b", "classes": ["no", "yes"]}]
    assert AttributeSchema.from_config(config) == schema
    assert AttributeSchema((Attribute("b", YES_NO),)).groups == {}


@pytest.mark.parametrize("group", ["", 3])
def test_a_group_has_a_name(group):
    with pytest.raises(ValueError, match=rf"Attribute 'a': group must be a name or None, received {group!r}"):
        Attribute("a", YES_NO, group)


def test_labels_out_of_range_are_named_by_the_first_label_and_sample():
    schema = AttributeSchema((Attribute("a", YES_NO), Attribute("b", ("x", "y", "z")), Attribute("c", YES_NO)))
    labels = np.tile(np.array([[-1, 2, 1], [0, 0, -1], [1, -1, 0]], np.int32), (4, 1))
    schema.check_labels(labels, "here")
    schema.check_labels(labels[:0], "here")
    labels[5, 2], labels[7, 1], labels[9, 1] = 2, 3, -2
    with pytest.raises(
        ValueError, match=r"^here: label 'b' must lie in \[-1, 2\] \(-1 = not annotated\), received 3 at sample 7$"
    ):
        schema.check_labels(labels, "here")
    labels[9, 1] = 0
    with pytest.raises(ValueError, match=r"received 3 at sample 7$"):
        schema.check_labels(labels, "here")
    labels[7, 1] = -2
    with pytest.raises(ValueError, match=r"received -2 at sample 7$"):
        schema.check_labels(labels, "here")
    with pytest.raises(ValueError, match=r"here: labels must be integers of shape \[n, 3\], received float32 \[12, 3\]"):
        schema.check_labels(labels.astype(np.float32), "here")
