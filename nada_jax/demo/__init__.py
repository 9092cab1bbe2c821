"""The web page of the demo, by Gradio: jobs in lanes, visitors apart, a guard in front, and the tabs."""
