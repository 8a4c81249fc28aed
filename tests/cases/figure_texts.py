"""Where the texts of a figure stand."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def text_boxes(figure, monkeypatch):
    """Draws a figure; every text with its box in pixels, and the width and height of the canvas."""
    draw, boxes = Text.draw, []

    def recorded(self, renderer, *args, **kwargs):
        draw(self, renderer, *args, **kwargs)
        if self.get_visible() and self.get_text().strip():
            boxes.append((self.get_text(), self.get_window_extent(renderer)))

    monkeypatch.setattr(Text, "draw", recorded)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return boxes, *canvas.get_width_height()
