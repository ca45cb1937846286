"""Can the rationales be trusted: vote against gold, samples a question, duplicates, leaked tests.

found = audit(view)                 a run, or a store with one generation
print(audit_text(found))
write_audit(view, found)            audit.html beside the run or the generation
"""
