//! How much the demo does. Counts, never seconds: the same on every machine.

/// Questions about a world, by how many pages it takes to answer them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hops {
    /// Of one page.
    pub(super) one: usize,
    /// Of two.
    pub(super) two: usize,
}

/// A size of the demo.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Questions of every type about each of the two worlds that data construction is shown with.
    pub(super) crawlqa: usize,
    /// Simple questions about each that are made hard.
    pub(super) e2hqa_roots: usize,
    /// Attempts at each of them.
    pub(super) attempts: u32,
    /// Further invented worlds to fine-tune on. What a small learner must learn is to copy any name at all: many names,
    /// each seen seldom, teach that; few names seen often are remembered.
    pub(super) lessons: u64,
    /// Questions about each of those, attempted once.
    pub(super) lesson: Hops,
    /// Who attempts them: an expert, in words that a small learner can imitate.
    pub(super) teacher: &'static str,
    /// Questions to reinforce on, which nobody has attempted.
    pub(super) practice: Hops,
    /// Changes of the preset `demo` of fine-tuning, TOML without `[schedule]`.
    pub(super) sft: &'static str,
    /// Updates of fine-tuning.
    pub(super) sft_steps: u64,
    /// Changes of the preset `demo` of reinforcement, TOML.
    pub(super) dapo: &'static str,
    /// Updates that fine-tuning goes on for, beside reinforcement: meant to take as long. How long both took is told.
    pub(super) more_steps: u64,
    /// Questions about the real countries.
    pub(super) evaluated: Hops,
    /// Whether fine-tuning is held to right answers, or to reward alone: names take more steps than the format.
    pub(super) answers: bool,
}

impl Budget {
    /// For people: fine-tuning, reinforcement and evaluation are to take eight minutes on two cores.
    pub(super) const FULL: Budget = Budget {
        crawlqa: 60,
        e2hqa_roots: 20,
        attempts: 3,
        lessons: 10,
        lesson: Hops { one: 400, two: 150 },
        // Every other attempt goes on looking after the answer is known. That it is right is all that a filter sees; that
        // it was dear, only who is held to a number of calls finds out.
        teacher: "scripted:terse,over_action=0.5",
        practice: Hops { one: 500, two: 200 },
        sft: "",
        sft_steps: 1_000,
        // The temperature that it is evaluated at. At 1 much of what is learnt is to be surer, which 0.6 has anyway.
        dapo: "[groups]\ntemperature = 0.6\n",
        more_steps: 800,
        evaluated: Hops { one: 140, two: 60 },
        answers: true,
    };

    /// For continuous integration: every stage, a loss that falls, and a policy that has learnt the format.
    pub(super) const QUICK: Budget = Budget {
        crawlqa: 24,
        e2hqa_roots: 8,
        attempts: 2,
        lessons: 3,
        lesson: Hops { one: 250, two: 0 },
        teacher: "scripted:terse",
        practice: Hops { one: 60, two: 0 },
        // With heads that copy from the first the format comes later, which is all that so few steps can teach.
        sft: "[model.scratch]\nmimetic_gain = 0.4\n[validation]\nevery_steps = 100\ntrajectories_max = 16\n\
              [optimizer]\nlr = 5e-3\n",
        sft_steps: 240,
        // Where no answer is right yet, attempts differ in their format: every group is learnt from.
        dapo: "[groups]\nprompts = 4\nsize = 4\ndynamic_sampling = false\nrefills_max = 1\nempty_batches_max = 1\n\
               [batch]\ngroups = 4\n[schedule]\nsteps_max = 3\n",
        more_steps: 20,
        evaluated: Hops { one: 24, two: 0 },
        answers: false,
    };
}
