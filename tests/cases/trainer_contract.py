"""What the model of every stage has to do."""

import keras
import numpy as np

from crl_tf.serving.export import export_saved_model


def check_decision_model(model, dataset, folder):
    """Finite numbers per class that survive saving, loading and exporting; returns them, float32 [n, sum(num_classes)]."""
    images = dataset.splits["test"].images.astype(np.float32)
    logits = model(images).numpy()
    assert logits.shape == (len(images), sum(dataset.schema.num_classes)) and logits.dtype == np.float32
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(model(images[:1]).numpy().argmax(), logits[0].argmax())

    model.save(folder / "x.keras")
    np.testing.assert_allclose(keras.saving.load_model(folder / "x.keras")(images).numpy(), logits, atol=1e-5)

    import tensorflow as tf

    export_saved_model(model, dataset.schema, images.shape[1:3], folder / "export")
    served = tf.saved_model.load(str(folder / "export")).signatures["serving_default"](images=tf.constant(images))
    for name in dataset.schema.names:
        of_label = logits[:, dataset.schema.columns(name)]
        probability = np.exp(of_label - of_label.max(axis=1, keepdims=True))
        np.testing.assert_allclose(served[f"{name}_scores"], probability / probability.sum(axis=1, keepdims=True), atol=1e-5)
    return logits


def balanced_accuracy(logits, labels):
    """Mean over classes of one label: logits [n, C], labels [n]."""
    decided = logits.argmax(axis=1)
    return np.mean([(decided[labels == value] == value).mean() for value in np.unique(labels[labels >= 0])])
