"""What a report says under its figures and tables."""

CAPTIONS = {
    "overview": "At a glance.",
    "accuracy": "Held-out accuracy against tokens generated in training and against seconds of "
    "training (validation left out of both). Bands: 95 % bootstrap over prompts.",
    "levels": "Held-out accuracy per level after training; bars: before training.",
    "pass_rates": "Pass rates of held-out prompts at the first, the middle and the last "
    "validation. Right: prompts whose solutions all have one verdict, beside "
    "published training runs (on training prompts, mostly in groups of 8 or more).",
    "calibration": "Predicted against actual pass rate on held-out prompts, at the first and the "
    "last validation. A dot is a prompt (jittered; prediction: mean over its parsed meta "
    "rollouts); markers are means per fifth with standard errors; dashed: perfect.",
    "length_calibration": "Predicted length (mean over a prompt's parsed predictions) against "
    "the mean length of its correct solutions, drawn as above.",
    "alignment": "Predicted and true pass rate over training. Lines: training prompts rolled out "
    "in full (running mean); marks: held-out prompts with 95 % intervals.",
    "gate": "Precision, recall and F1 of the gate and correct answers lost to the cutoff, with "
    "95 % intervals, per kind of evidence.",
    "control": "Gate, cutoff and cost over training. Precision and recall are those on prompts "
    "rolled out whatever the gate decided (all in shadow mode, then the audited ones), over a "
    "running window with 95 % Wilson bands. In the middle the band is the middle half of the "
    "prompts; lengths are those of correct solutions that no cutoff could shorten, their median "
    "and 95th percentile.",
    "gains": "Gain in held-out pass rate since the first validation, per prompt and validation, "
    "against the change of its meta reward (mean per bin) and against the rollout.",
    "shapley": "Shapley shares of R2, with 95 % intervals.",
    "lengths": "Standardised length error per held-out prompt at the last validation; beyond 8 "
    "drawn at 8.",
    "notions": "Notions whose share of the held-out solutions changed most, first to last "
    "validation.",
    "accuracy_curves": "Held-out accuracy against rollouts, tokens, FLOPs and seconds of training "
    "(validation left out). Ticks at the bottom: before the first prompt that came for the second "
    "time, for the third, and so on.",
    "speedup": "How many times cheaper than the baseline; the line at 1 is no difference; an "
    "arrow: the interval ends outside the figure. The claim is at 90 %; 100 % is exploratory.",
    "dynamics": "Predictions on held-out prompts over training.",
    "ablation": "Held-out accuracy after equally many rollouts, and its difference from the "
    "baseline of the same seed.",
}
OF_A_SWEEP = {
    "calibration": "First seed of a method.",
    "length_calibration": "First seed of a method.",
    "control": "One seed.",
    "pass_rates": "First seed of the baseline.",
    "lengths": "Prompts of all seeds.",
}
FLOPS = (
    "FLOPs: 2 N per token read or sampled and 6 N per trained token (4 N plus 2 per trained "
    "parameter with LoRA, 2 N more with a KL reference), N = parameters without a look-up-only "
    "embedding; attention over earlier tokens left out."
)
OVER_PROMPTS = (
    "Brackets: 95 % intervals; held-out numbers: bootstrap over prompts (10,000 resamples), "
    "shares of counted prompts: Wilson; F1 and shares of tokens: bootstrap over prompts. "
    "Tokens, FLOPs and seconds are those of training, without validation. "
    f"{FLOPS} Intervals cover the choice of prompts, not the training seed."
)
OVER_SEEDS = (
    "Brackets, bars and bands: 95 % intervals over training seeds; curves and markers: means over "
    "them. Intervals are Student's t on one value per seed, or, for counted shares (k of n), "
    "Wilson at the effective size over seeds with Student's quantile. They cover the training "
    "seeds alone: the held-out prompts are taken as fixed. Bounds of "
    f"shares and correlations are cut where their range ends. {FLOPS}"
)
DIFFERENCES = (
    "Held-out accuracy minus the baseline's, paired per prompt; two-sided sign-flip test, "
    "Holm over the rows. Rollouts: after how many each side was validated."
)
TO_TARGET = (
    "Cost until held-out accuracy first reaches the baseline's last value, linear between "
    "validations (a noisy curve crosses early: read it with its band). These are single runs: how "
    "many times cheaper a method is needs several seeds."
)
AT_BUDGET = (
    "Budget: what the run that ended cheapest had spent; accuracy is linear between validations. "
    "Difference: minus {baseline} of the same seed, t interval over seeds; p: Student's paired t "
    "test over seeds, and Holm-adjusted over the rows."
)
SPEEDUPS = (
    "Target: that share of the gain in mean accuracy which {baseline} made over training. Ratio: "
    "cost of {baseline} / cost of the method until their mean curves over the shared seeds first "
    "reach it; above 1 means cheaper. 95 % interval: jackknife over seeds of the log ratio with "
    "Student's quantile. The claim is at 90 %; 100 % is exploratory: curves are flat there, so "
    "that noise moves the crossing far, and there is no interval where without one seed there is "
    "no crossing."
)
ABLATION = (
    "Settings that differ, and accuracy after equally many rollouts; p Holm-adjusted over the "
    "methods."
)
SCORES = (
    "At the last validation, means over held-out prompts; a prediction that could not be read "
    "scores 0. Difficulty score: b ** |p - predicted p|; length score: predicted length between "
    "the shortest and the longest correct solution; notion score: share of the predicted notions "
    "that more correct than wrong solutions contain; meta reward: their mean under the run's "
    "weights (`algorithm.meta.rewards.*.weight`). Length MAE, corr: mean predicted length against "
    "the mean of the correct solutions, per prompt that has both."
)
ALIGNMENT = (
    "Means over the held-out prompts with a prediction, at the first, the last and three "
    "validations between."
)
CONTROL = (
    "Shadow: the gate, or for lost answers the cutoff, is measured and not enforced. Evidence are "
    "all prompts while neither is active, else the audited ones. Active: it is enforced. Evidence "
    "are the audited prompts, drawn at random and rolled out at the full response limit. "
    "Would-skip share: prompts that the gate would skip, audited ones included. Precision: share "
    "of these whose solutions are all correct or all wrong (zero variance). Recall: share of the "
    "zero-variance prompts that the gate would skip; read it beside their share of all prompts. "
    "Correct lost: share of correct solutions longer than the cutoff, of prompts that an active "
    "gate does not skip (interval at the effective sample size, since solutions of a prompt share "
    "its cutoff). Solution tokens per prompt: shadow while neither is active, active while either "
    "is; 95 % bootstrap."
)
HELD_OUT_GATE = (
    "The gate's decisions on held-out prompts at the last validation, all of which are rolled out. "
    "They have fewer solutions and predictions than in training (`trainer.val_samples`, "
    "`val_meta_samples`): more of them have zero variance, and predictions agree more easily. Do "
    "not compare them with the numbers from training prompts."
)
LENGTHS = (
    "Error: (mean actual length of the prompt's solutions of that verdict - mean predicted length) "
    "/ standard deviation of the predicted lengths. Kept: share of the prompts with such solutions "
    "whose predictions vary, the others have no error. Last column: share of the solutions that "
    "the cutoff would stop; of correct ones they are answers lost."
)
GAINS = (
    "Meta reward: mean of the scores under the run's weights "
    "(`algorithm.meta.rewards.*.weight`). R2 shares: Shapley values of a "
    "linear model of the gain on the changes of the scores and the step, averaged over all "
    "orders. Gain and scores come from the same solutions, so part of the relation is arithmetic, "
    "not cause."
)
NOTIONS = (
    "Share of the solutions of a verdict that mention a predicted notion; start, end: first and "
    "last validation."
)
NOTIONS_OF_SEEDS = (
    f"{NOTIONS} A notion that any seed predicts is looked for in the solutions of all seeds; one "
    "that a seed never mentions counts there as 0."
)
WORST = (
    "The held-out prompts with the largest error of the mean predicted pass rate, each with "
    "its most wrong prediction and a solution that speaks against the prediction."
)
