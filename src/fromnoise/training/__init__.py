"""One Learner, and one short recipe for each thing that is trained."""
