"""Scores for a reader who has never seen them: what each is called on the page, and a sentence on how to read it."""

READING: dict[str, tuple[str, str]] = {
    "nats_per_token": ("Surprise at new targets", "How much each token of a target it never saw surprises the model, given the source."),
    "token_error_rate": ("Wrong tokens", "How many words or characters must be changed to make what is written right."),
    "sequence_error_rate": ("Wrong targets", "How many targets are not exactly right."),
    "bleu": ("Shared phrases", "How many short runs of words are also in what should be written; 100 is all."),
    "chrf": ("Shared strings", "How many short runs of characters are also in what should be written; 100 is all."),
    "judge_auc": ("A judge's guesses", "How often a fresh classifier points at the sample beside a real item: 0.5 is guessing."),
    "membership_auc": ("Traces of training data", "How often the model betrays which of two real items it knows: 0.5 is guessing."),
    "frechet_distance": ("Distance from real", "How far samples as a whole are from real images, as a network sees them; 0 is alike."),
    "kernel_distance": ("Distance from real, again", "The same, measured in a way that is fairer when images are few."),
    "precision": ("Samples among real", "How many samples look like some real items."),
    "recall": ("Real items reached", "How many real items have samples like them."),
    "spectrum_distance": ("Sharpness and texture", "How far the detail is from that of real images; blur and noise raise it."),
    "label_agreement": ("Samples like their class", "How often a classifier of real images takes a sample for what its label says."),
    "tstr_accuracy": ("Learning from samples", "How often a classifier that saw samples only names real images rightly."),
    "quality": ("Columns and pairs", "How alike each column, and each pair of columns, is in samples and real rows; 1 is the same."),
    "worst_column": ("Furthest column", "How alike the values of that column are; 1 is the same."),
    "worst_pair": ("Furthest pair", "How alike the two columns are when taken together; 1 is the same."),
    "coverage": ("Values reached", "How many of the levels, and of the tenths of each number, that real rows have occur in samples."),
    "distinct_rows": ("Different rows", "How many samples are the only ones of their kind; repeats lower it."),
    "tstr_auc": ("Learning from samples", "How well a model that saw samples only ranks real rows: 0.5 is guessing, 1 is always right."),
    "tstr_macro_f1": ("Learning, class by class", "How well it names the class of real rows, every class counting alike."),
    "tstr_r2": ("Learning from samples", "How much of a number of real rows a model that saw samples only explains."),
    "nats_per_row": ("Surprise at new rows", "How much a row it never saw surprises the model (1 nat is 1.44 bits)."),
    "nearer_to_training": ("Nearer to training data", "How often a sample is more like a training item than a new one; half is chance."),
    "near_copies": ("Near copies", "How many samples are suspiciously like one training item."),
    "exact_copies": ("Exact copies", "How many samples equal a training item in every detail."),
    "bytes_per_image": ("Bytes for new images", "What a picture it never saw takes in a file, at this quality."),
    "bits_per_dim": ("Bits for new images", "How much one must tell the model for it to know an image it never saw; less is foresight."),
    "nats_per_char": ("Surprise at new text", "How much each character of text it never saw surprises the model (1 nat is 1.44 bits)."),
    "bits_per_byte": ("Surprise, byte by byte", "How much each byte of text it never saw surprises the model."),
    "perplexity": ("Choices in doubt", "Between how many next pieces of text, on average, the model hesitates."),
    "ngram_divergence": ("Spelling and wording", "How differently samples and real text use short strings of characters; 0 is alike."),
    "length_divergence": ("Lengths", "How differently long lines or words are in samples and in real text; 0 is alike."),
    "distinct_2": ("Variety of wording", "How seldom pairs of neighbouring words come again."),
    "word_validity": ("Known words", "How many words of the samples occur in the training text."),
    "sample_perplexity": ("How ordinary it reads", "How much samples surprise plain counting: above real text is garbled, below dull."),
    "longest_copied_span": ("Longest copy", "The longest passage of any sample that is in the training text too."),
    "copied_passages": ("Samples with copies", "How many samples repeat a long stretch of the training text."),
    "mean_copied_span": ("Usual copy", "How long a sample's longest passage is that is in the training text too."),
    "copied_spans": ("Copied stretches", "How much of the samples is in the training text too."),
}  # fmt: skip


def title(name: str) -> str:
    """The score in two or three words; its name, where there are none."""
    return READING[name][0] if name in READING else name.replace("_", " ")


def reading(name: str) -> str:
    return READING[name][1] if name in READING else ""
