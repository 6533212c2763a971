"""What scores are for: smaller training sets, test sets, curricula.  in: finished runs   out: trainings, tables"""
